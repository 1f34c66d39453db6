"""Every key of OpenClaw's configuration is honoured, refused as a restriction, or ignored without harm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.configuration_reference import REFERENCE, render, schema_keys
from support.transcripts import Transcripts

from service.config.key_rules import expand_pattern, find_rule, rule_tree, split_pattern
from service.config.openclaw_keys import IGNORED, RESTRICTIONS, Restriction
from service.config.roster import Roster
from service.config.schema import parse_config
from service.config.source import ConfigError, Locations
from service.config.tools import ToolsConfig
from service.gateway.build import open_toolboxes
from service.tools.policy import allowed_tools, may_allow
from service.tools.policy_checks import BUILT_IN
from service.tools.process_slots import ToolSlots

KEYS = Path(__file__).with_name("openclaw_keys.txt")

#: Objects of the schema whose keys are for the user to name, or that stand for one text.
OPEN = (
    *("models.providers.*.headers", "models.providers.*.localService.env"),
    *("models.providers.*.models[].cost", "mcp.servers.*.env", "mcp.servers.*.headers"),
)
#: Keys that this gateway has under another name, and says so; and any other key of an MCP server.
RENAMED = {"mcp.servers.*.timeout", "mcp.servers.*.workingDirectory", "mcp.servers.*.*"}


def openclaw_keys() -> Iterator[str]:
    """Yield the paths in the data file, as patterns."""
    parents: list[str] = []
    for line in KEYS.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        del parents[depth:]
        path = "".join(parents)
        for key in line.split():
            name = key.removesuffix(":")
            step = name if name == "[]" or not path else f".{name}"
            if name != "[]":
                yield path + step
            if key.endswith(":"):
                parents.append(step)


def steps_of(pattern: str) -> tuple[str | int, ...]:
    return tuple(0 if step == "[]" else step for step in split_pattern(pattern))


HONOURED = {key.pattern for key in schema_keys()}
SECRETS = {key.pattern for key in schema_keys() if "SecretStr" in str(key.field.annotation)}


def classes_of(pattern: str) -> set[str]:
    """Return what becomes of a key: what its own row or that of a key above says, or the schema."""
    above, _, last = pattern.rpartition(".")
    if above in SECRETS | {"models.providers.*.headers.*"} and last in ("source", "provider", "id"):
        return {"honoured"}  # a reference to a secret
    if pattern.startswith(OPEN) or any(f"{known}.".startswith(f"{pattern}.") for known in HONOURED):
        own = find_rule(steps_of(pattern))
        return {"honoured"} | ({"ignored"} if isinstance(own, str) else set())
    steps = steps_of(pattern)
    found = [rule for end in range(len(steps), 0, -1) if (rule := find_rule(steps[:end])) is not None]
    if found:
        return {"refused" if isinstance(found[0], Restriction) else "ignored"}
    return {"refused"} if pattern in RENAMED else set()


def is_only_a_container(pattern: str) -> bool:
    node = rule_tree()
    for step in split_pattern(pattern):
        if step not in node.below:
            return False
        node = node.below[step]
    return node.rule is None


def test_every_openclaw_key_is_in_exactly_one_class() -> None:
    keys = list(openclaw_keys())
    assert len(keys) > 2000
    undecided = {key: found for key in keys if len(found := classes_of(key)) != 1 and not is_only_a_container(key)}
    assert undecided == {}


def test_every_row_names_openclaw_keys() -> None:
    keys = set(openclaw_keys())
    rows = [row.pattern for row in RESTRICTIONS] + [pattern for patterns in IGNORED.values() for pattern in patterns]
    alternatives = [f"{head}{key}" for row in rows for head, keys_ in [split_last(row)] for key in keys_]
    # `params` is free in OpenClaw's schema.
    known = {re.sub(r"\[\]$", "", path) for path in keys}
    dead = [
        row
        for row in alternatives
        if "routing" not in row and not any(path.removesuffix("[]") in known for path in expand_pattern(row))
    ]
    assert dead == []
    assert len(alternatives) == len(set(alternatives))


def split_last(row: str) -> tuple[str, list[str]]:
    head, dot, last = row.rpartition(".")
    return head + dot, last.split("|")


ALL, DENY = ["all"], ["exec"]
#: Restricting values of each restriction, and harmless ones.
SAMPLES: dict[str, tuple[list[Any], list[Any]]] = {
    "gateway.auth.trustedProxy.cloudflareAccessOidc": ([{"issuer": "https://example.com"}], []),
    "{agent}.sandbox.perSession": ([True, 0], [False]),
    "{tools}.exec.mode": (["allowlist", "auto"], ["full", "ask", "deny"]),
    "{tools}.exec.security": (["allowlist"], ["full", "deny"]),
    "{tools}.exec.strictInlineEval": ([True, "true"], [False]),
    "{named}.tools.exec.timeoutSec": ([60, "60"], [1800, 3600]),
    "{tools}.exec.timeoutSeconds": ([60], [1800]),
    "{tools}.sandbox.tools.allow": ([ALL, "exec"], [[]]),
    "{tools}.sandbox.tools.deny": ([DENY], [[]]),
    "tools.web.fetch.ssrfPolicy.blockedHostnames": ([["example.com"]], [[]]),
    "gateway.roles": ([{"default": "guest"}], [{}]),
    "gateway.remote.tlsFingerprint": (["AB:CD"], [""]),
    "gateway.http.endpoints.chatCompletions.maxBodyBytes": ([1_000, True], [20 * 1024 * 1024]),
    "gateway.http.endpoints.chatCompletions.maxImageParts": ([0, 7], [8, 20]),
    "gateway.http.endpoints.chatCompletions.maxTotalImageBytes": ([1_000], [50_000_000]),
    "gateway.http.endpoints.responses.maxBodyBytes": ([1_000], [20 * 1024 * 1024]),
    "gateway.http.endpoints.responses.maxUrlParts": ([0, 7], [8, 20]),
    "gateway.http.endpoints.responses.images": ([{"allowUrl": False}], [{}]),
    "session.sendPolicy.default": (["deny"], ["allow"]),
    "session.sendPolicy.rules[]": (
        [
            {"action": "deny"},
            {"action": "deny", "match": {"chatType": "direct"}},
            {"action": "deny", "match": {"channel": "webchat"}},
        ],
        [{"action": "allow"}, {"action": "deny", "match": {"channel": "discord", "chatType": "group"}}],
    ),
    "proxy": (
        [{"proxyUrl": "http://p:3128"}, {"enabled": True}, {"enabled": True, "proxyUrl": "http://p"}, []],
        [{}, {"enabled": False, "proxyUrl": "http://p:3128"}, {"loopbackMode": "block"}],
    ),
    "secrets.egressProxy.enabled": ([True], [False]),
    "models.providers.*.request.proxy.mode": (["explicit-proxy"], ["env-proxy"]),
    "models.providers.*.request.tls.ca": (["PEM", {"source": "env", "id": "CA"}], [""]),
    "models.providers.*.request.allowPrivateNetwork": ([False], [True]),
    "{routing}.ignore|max_price|only|quantizations": ([["x"], {"prompt": 1}], [[], {}]),
    "{routing}.data_collection": (["deny"], ["allow"]),
    "{routing}.enforce_distillable_text|require_parameters|zdr": ([True], [False]),
    "{routing}.allow_fallbacks": ([False], [True]),
}


def document(steps: list[str], value: Any) -> Any:
    """Return a configuration that has `value` at `steps`, with what the objects on the way require."""
    for index in range(len(steps) - 1, -1, -1):
        step = steps[index]
        value = [value] if step == "[]" else {"x" if step == "*" else step: value}
        above = steps[:index]
        if isinstance(value, dict) and above in (
            ["agents", "list", "[]"],
            ["models", "providers", "*", "models", "[]"],
        ):
            value = {"id": "x", **value}
        if above == ["models", "providers", "*"]:
            value = {"baseUrl": "http://h/v1", **value}
    return value


def problems_of(data: object) -> tuple[str, ...]:
    try:
        parse_config(data)
    except ConfigError as error:
        return error.problems
    return ()


def test_every_restriction_has_samples() -> None:
    assert list(SAMPLES) == [row.pattern for row in RESTRICTIONS]


@pytest.mark.parametrize("pattern", SAMPLES)
def test_restriction_is_refused_and_harmless_value_accepted(pattern: str) -> None:
    restricting, harmless = SAMPLES[pattern]
    for path in expand_pattern(pattern):
        written = path.replace("[]", "[0]").replace("*", "x")
        for value in restricting:
            problems = problems_of(document(split_pattern(path), value))
            assert any(one.startswith(f"{written}: ") and "restriction" in one for one in problems), (path, value)
        for value in harmless:
            assert problems_of(document(split_pattern(path), value)) == (), (path, value)


@pytest.mark.parametrize(
    ("data", "key", "remedy"),
    [
        ({"agents": {"defaults": {"sandbox": {"mode": "all"}}}}, "agents.defaults.sandbox.mode", '"rw"'),
        ({"agents": {"list": [{"id": "a", "sandbox": {"mode": "all"}}]}}, "agents.list[0].sandbox.mode", '"rw"'),
        ({"agents": {"entries": {"a": {"sandbox": {"mode": "non-main"}}}}}, "agents.entries.a.sandbox.mode", '"rw"'),
        ({"tools": {"exec": {"strictInlineEval": True}}}, "tools.exec.strictInlineEval", '"always"'),
        ({"tools": {"exec": {"security": "allowlist"}}}, "tools.exec.security", '"deny"'),
        ({"tools": {"exec": {"mode": "auto"}}}, "tools.exec.mode", '"deny"'),
        ({"tools": {"sandbox": {"tools": {"deny": ["exec"]}}}}, "tools.sandbox.tools.deny", "tools.deny"),
        ({"tools": {"sandbox": "strict"}}, "tools.sandbox", '"strict" is no object'),
        ({"agents": {"list": [{"id": "a", "sandbox": True}]}}, "agents.list[0].sandbox", "object"),
    ],
)
def test_refusal_names_key_and_remedy(data: Any, key: str, remedy: str) -> None:
    (problem,) = problems_of(data)
    assert problem.startswith(f"{key}: ")
    assert remedy in problem


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"agents": {"defaults": {"sandbx": {"mode": "all"}}}}, "agents.defaults.sandbx: is not a key"),
        ({"tools": {"exec": {"aks": "always"}}}, "tools.exec.aks: is not a key"),
        ({"tools": {"web": {"fetch": {"enabeld": False}}}}, "did you mean `enabled`?"),
        ({"security": {"lockdown": True}}, "security.lockdown: is not a key"),
        ({"mcp": {"servers": {"a": {"command": "x", "disabled": True}}}}, "mcp.servers.a.disabled: is not a key"),
        ({"agents": {"list": [{"id": "a", "tools": {"sessions": {"visibility": "self"}}}]}}, "is not a key"),
        ({"$include": "./more.json5"}, "$include"),
        ({"tools": {"$include": ["./tools.json5"]}}, "includes are not supported"),
    ],
)
def test_unknown_key_is_refused(data: Any, words: str) -> None:
    assert any(words in problem for problem in problems_of(data))


def offered(tmp_path: Path, everywhere: Any, *models: str, **agent: Any) -> set[str]:
    """The tools of an agent with a workspace and every tool, under the tools of `everywhere`."""
    entry = {"id": "main", "workspace": str(tmp_path), **agent}
    config, _ = parse_config({"agents": {"list": [entry]}, "tools": {"profile": "full", **everywhere}})
    roster = Roster.from_config(config)
    with (
        closing(Transcripts.open(tmp_path / "sessions.db")) as store,
        closing(
            open_toolboxes(
                config, roster, store, Locations(tmp_path / "openclaw.json", tmp_path, dev=False), {}, ToolSlots()
            )
        ) as toolboxes,
    ):
        return {function.name for function in toolboxes.of(roster.default, (), models).functions()}


@pytest.mark.parametrize(
    ("tools", "agent", "runs"),
    [
        ({}, {}, True),
        ({"exec": {"security": "full", "ask": "off", "host": "gateway"}}, {}, True),
        ({"exec": {"mode": "ask"}}, {}, True),
        ({"exec": {"ask": "always"}}, {}, True),
        ({"exec": {"ask": "always", "security": "deny"}}, {}, False),
        ({"exec": {"security": "deny"}}, {}, False),
        ({"exec": {"mode": "deny"}}, {}, False),
        ({"exec": {"host": "sandbox"}}, {}, True),
        ({"exec": {"host": "sandbox", "sandbox": "off"}}, {}, False),
        ({"exec": {"host": "node"}}, {}, False),
        ({}, {"exec": {"security": "deny"}}, False),
        ({"exec": {"security": "deny"}}, {"exec": {"security": "full"}}, True),
        ({"exec": {"mode": "full"}}, {"exec": {"mode": "deny"}}, False),
        ({"exec": {"security": "deny"}}, {"exec": {"host": "gateway"}}, False),
        ({"toolsBySender": {"*": {"deny": ["exec"]}}}, {}, False),
        ({"toolsBySender": {"id:guest": {"deny": ["exec"]}}}, {}, True),
        ({"toolsBySender": {"*": {"deny": ["exec"]}}}, {"toolsBySender": {"*": {}}}, True),
    ],
)
def test_exec_is_offered_unless_setting_withholds_it(tmp_path: Path, tools: Any, agent: Any, runs: bool) -> None:
    found = offered(tmp_path, tools, tools=agent)
    assert ("exec" in found) == runs
    assert {"read", "web_fetch"} <= found


@pytest.mark.parametrize(
    ("deny", "gone"),
    [
        ("group:openclaw", {"web_fetch", "session_status", "sessions_list", "sessions_history", "agents_list"}),
        ("group:agents", {"agents_list"}),
        ("group:runtime", {"exec"}),
        ("read", {"read", "grep"}),
        ("group:plugins", {"docs__search"}),
        ("bundle-mcp", {"docs__search"}),
    ],
)
def test_denials_of_openclaw_groups_and_names_take_tools_away(deny: str, gone: set[str]) -> None:
    tools = parse_config({"tools": {"profile": "full", "deny": [deny]}})[0].tools
    names = [*BUILT_IN, "docs__search"]
    assert set(names) - set(allowed_tools(tools, ToolsConfig(), names)) == gone
    assert may_allow(tools, ToolsConfig(), ("docs__",)) == ("docs__search" not in gone)


def test_web_fetch_switched_off_is_not_offered(tmp_path: Path) -> None:
    assert "web_fetch" in offered(tmp_path, {"web": {"fetch": {"enabled": True}}})
    found = offered(tmp_path, {"web": {"fetch": {"enabled": False}}})
    assert "web_fetch" not in found
    assert "exec" in found


@pytest.mark.parametrize(
    ("tools", "models", "gone"),
    [
        ({"byProvider": {"openai": {"deny": ["exec"]}}}, ["openai/gpt-5"], True),
        ({"byProvider": {"OpenAI": {"deny": ["exec"]}}}, ["openai/gpt-5"], True),
        ({"byProvider": {"openai": {"deny": ["exec"]}}}, ["anthropic/x"], False),
        ({"byProvider": {"openai": {"deny": ["exec"]}}}, ["anthropic/x", "openai/gpt-5"], True),
        ({"byProvider": {"openai/gpt-5": {"deny": ["exec"]}}}, ["openai/gpt-5"], True),
        ({"byProvider": {"openai/gpt-5": {"deny": ["exec"]}}}, ["openai/gpt-4"], False),
        ({"byProvider": {"openai": {"deny": ["exec"]}, "openai/gpt-5": {}}}, ["openai/gpt-5"], False),
        ({"byProvider": {"openai": {"profile": "minimal"}}}, ["openai/gpt-5"], True),
        ({"byProvider": {"openai": {"profile": "minimal", "alsoAllow": ["exec"]}}}, ["openai/gpt-5"], False),
        ({"byProvider": {"openai": {"allow": ["group:fs"]}}}, ["openai/gpt-5"], True),
    ],
)
def test_by_provider_limits_tools_of_run(tmp_path: Path, tools: Any, models: list[str], gone: bool) -> None:
    assert ("exec" not in offered(tmp_path, tools, *models)) == gone
    assert ("exec" not in offered(tmp_path, {}, *models, tools=tools)) == gone


def test_by_provider_profile_of_agent_replaces_global_one(tmp_path: Path) -> None:
    everywhere = {"byProvider": {"p": {"profile": "minimal", "deny": ["write"]}}}
    found = offered(tmp_path, everywhere, "p/m", tools={"byProvider": {"p/m": {"profile": "coding"}}})
    assert "exec" in found
    assert "write" not in found


@pytest.mark.parametrize(
    ("tools", "visibility"),
    [
        ({"sessions": {"visibility": "all"}}, "all"),
        ({"sessions": {"visibility": "tree"}}, "self"),
        ({"sessions": {"visibility": "all"}, "agentToAgent": {"enabled": False}}, "agent"),
        ({"sessions": {"visibility": "all"}, "agentToAgent": {"allow": ["main", "ops"]}}, "agent"),
        ({"sessions": {"visibility": "all"}, "agentToAgent": {"allow": ["*"]}}, "all"),
        ({"agentToAgent": {"enabled": True}}, "self"),
    ],
)
def test_agent_to_agent_limits_session_visibility(tools: Any, visibility: str) -> None:
    assert parse_config({"tools": tools})[0].tools.session_visibility == visibility


def test_mcp_server_switch_and_tool_filter_are_honoured() -> None:
    servers = {"off": {"command": "x", "enabled": False}, "on": {"command": "x", "toolFilter": {"exclude": ["rm*"]}}}
    mcp = parse_config({"mcp": {"servers": servers}})[0].mcp
    assert list(mcp.servers) == ["on"]
    assert mcp.servers["on"].tool_lists.deny == ("rm*",)
    assert mcp.servers["on"].tool_lists.allow is None
    both = {"command": "x", "tools": {"deny": ["a"]}, "toolFilter": {"include": ["b"]}}
    assert problems_of({"mcp": {"servers": {"a": both}}}) == (
        "mcp.servers.a.tools: toolFilter is given too; keep one of the two spellings",
    )


MODELS = {"providers": {"p": {"baseUrl": "http://h/v1", "models": [{"id": "a"}, {"id": "b"}]}}}


@pytest.mark.parametrize(
    ("agents", "more", "allowed", "refused"),
    [
        ({}, {}, ["p/a", "q/x"], []),
        ({"modelPolicy": {"allow": ["p/*"]}}, {}, ["p/a", "P/z", "own/m"], ["q/x", "pp/a"]),
        ({"modelPolicy": {"allow": ["p/a"]}}, {}, ["p/a", "own/m"], ["p/ab", "p/b"]),
        ({"modelPolicy": {"allow": []}, "models": {"p/a": {}}}, {}, ["q/x"], []),
        ({"models": {"p/a": {"alias": "a"}}}, {}, ["p/a", "own/m"], ["p/b"]),
        ({"models": {"p/a": {}}}, {"meta": {"migrations": {"modelPolicyAllowlist": True}}}, ["p/b"], []),
        ({}, {"models": {**MODELS, "mode": "replace"}}, ["p/a", "own/m"], ["p/c", "openai/gpt-5"]),
        ({"modelPolicy": {"allow": ["p/a"]}}, {"models": {**MODELS, "mode": "replace"}}, ["p/a"], ["p/b"]),
    ],
)
def test_callers_may_choose_only_allowed_models(agents: Any, more: Any, allowed: list[str], refused: list[str]) -> None:
    config, _ = parse_config({"agents": {"defaults": {"model": "own/m", **agents}}, **more})
    agent = Roster.from_config(config).default
    assert [model for model in allowed if not agent.may_use(model)] == []
    assert [model for model in refused if agent.may_use(model)] == []


def test_model_policy_of_agent_replaces_default_one() -> None:
    entries = {"a": {"modelPolicy": {"allow": ["q/*"]}}, "b": {"modelPolicy": {"allow": []}}, "c": {}}
    config, _ = parse_config({"agents": {"defaults": {"modelPolicy": {"allow": ["p/*"]}}, "entries": entries}})
    found = {agent.id: (agent.may_use("p/m"), agent.may_use("q/m")) for agent in Roster.from_config(config).agents}
    assert found == {"a": (False, True), "b": (True, True), "c": (True, False)}


def test_every_key_has_description() -> None:
    assert [key.pattern for key in schema_keys() if not key.description] == []


def test_reference_is_up_to_date() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == render(), "run tests/support/configuration_reference.py"


SANDBOX = {"mode": "all", "workspaceAccess": "rw", "scope": "agent", "docker": {"network": "none", "image": "x"}}


@pytest.mark.parametrize(
    "agents",
    [
        {"defaults": {"sandbox": SANDBOX}},
        {"list": [{"id": "a", "sandbox": SANDBOX}]},
        {"defaults": {"sandbox": {"mode": "all"}}, "entries": {"a": {"sandbox": {"workspaceAccess": "rw"}}}},
        {"defaults": {"sandbox": {"mode": "all"}}, "entries": {"a": {"sandbox": {"mode": "off"}}}},
        {"defaults": {"sandbox": {"mode": "off", "docker": {"memory": "1g"}}}},
    ],
    ids=["defaults", "agent", "access of the agent", "off for the agent", "off"],
)
def test_sandbox_with_the_workspace_is_that_of_commands(agents: Any) -> None:
    assert problems_of({"agents": agents}) == ()


@pytest.mark.parametrize(
    ("data", "key", "problem"),
    [
        ({"agents": {"defaults": {"sandbox": {**SANDBOX, "workspaceAccess": "ro"}}}}, "mode", '"rw"'),
        ({"agents": {"defaults": {"sandbox": {"mode": "non-main"}}}}, "mode", '"rw"'),
        ({"agents": {"defaults": {"sandbox": SANDBOX}}, "tools": {"exec": {"sandbox": "off"}}}, "mode", '"off"'),
        ({"agents": {"defaults": {"sandbox": {**SANDBOX, "docker": {"memory": "1g"}}}}}, "docker.memory", "limits"),
        (
            {"agents": {"defaults": {"sandbox": {**SANDBOX, "docker": {"capDrop": ["ALL"]}}}}},
            "docker.capDrop",
            "remove",
        ),
    ],
)
def test_sandbox_that_cannot_be_had_is_refused(data: Any, key: str, problem: str) -> None:
    (found,) = problems_of(data)
    assert found.startswith(f"agents.defaults.sandbox.{key}: ")
    assert problem in found


def test_inherited_sandbox_is_refused_once() -> None:
    agents = {"defaults": {"sandbox": {"mode": "all"}}, "list": [{"id": "a"}, {"id": "b"}]}
    assert len(problems_of({"agents": agents})) == 1
