"""Configuration errors and notices at start-up."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.chat import ask, error_of, text_of
from support.live import live_gateway, scripted_config

from service.config.roster import Roster
from service.config.schema import parse_config
from service.config.source import ConfigError
from service.gateway.startup_checks import check_agents, check_mode
from service.models.catalog import EMBEDDED_REFERENCE, ModelCatalog
from service.tools.policy_checks import tool_warnings

NOBODY = "http://127.0.0.1:9/v1"


def check(
    tmp_path: Path,
    agents: Any,
    providers: Any = None,
    *,
    environ: Mapping[str, str] | None = None,
    private_path: Path | None = None,
    log: Path | None = None,
) -> tuple[str, ...]:
    logging = {} if log is None else {"logging": {"file": str(log)}}
    config, _ = parse_config({"agents": agents, "models": {"providers": providers or {}}, **logging})
    catalog = ModelCatalog(config, tmp_path, environ or {})
    try:
        private = [private_path or tmp_path.parent / "openclaw.json"]
        return check_agents(config, Roster.from_config(config), catalog, private)
    finally:
        catalog.close()


def _make(directory: Path) -> Path:
    directory.mkdir()
    return directory


def refused(tmp_path: Path, agents: Any, providers: Any = None) -> str:
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, agents, providers)
    (problem,) = caught.value.problems
    return problem


def test_usable_configuration_has_no_notices(tmp_path: Path) -> None:
    agents = {
        "defaults": {"model": {"primary": "stub/a", "fallbacks": ["groq/b", "ollama/c"]}},
        "list": [{"id": "main", "workspace": str(tmp_path)}, {"id": "other", "model": "claude/x"}],
    }
    claude = {"baseUrl": NOBODY, "api": "anthropic-messages"}
    assert (
        check(tmp_path, agents, {"stub": {"baseUrl": NOBODY}, "claude": claude}, environ={"GROQ_API_KEY": "sk-here"})
        == ()
    )
    assert check(tmp_path, {}) == check(tmp_path, {"defaults": {"model": EMBEDDED_REFERENCE}}) == ()


@pytest.mark.parametrize(
    ("agents", "place"),
    [
        ({"defaults": {"model": "nowhere/x"}}, "agents.defaults.model"),
        ({"defaults": {"model": "nowhere/x"}, "list": [{"id": "a"}, {"id": "b"}]}, "agents.defaults.model"),
        ({"defaults": {"model": "stub/x"}, "list": [{"id": "a", "model": "nowhere/x"}]}, "agents.list[0].model"),
    ],
)
def test_model_of_unknown_provider_is_refused(tmp_path: Path, agents: Any, place: str) -> None:
    problem = refused(tmp_path, agents, {"stub": {"baseUrl": NOBODY}})
    assert problem.startswith(f'{place}: No provider "nowhere" is configured for the model nowhere/x. Available: stub,')


def test_workspace_with_own_files_is_noted(tmp_path: Path) -> None:
    agents = {"defaults": {"model": "stub/a", "workspace": str(tmp_path)}}
    private = _make(tmp_path / "state")
    (tmp_path / "link").symlink_to(tmp_path)
    for workspace in (tmp_path, tmp_path / "link", private):
        agents["defaults"]["workspace"] = str(workspace)
        (notice,) = check(tmp_path, agents, {"stub": {"baseUrl": NOBODY}}, private_path=private)
        assert notice.startswith(
            f"agents.defaults.workspace: {workspace} holds files of the gateway itself ({private})"
        )
    agents["defaults"]["workspace"] = str(_make(private / "workspace"))
    assert check(tmp_path, agents, {"stub": {"baseUrl": NOBODY}}, private_path=private) == ()


def test_workspace_with_a_link_to_own_files_is_refused(tmp_path: Path) -> None:
    private, workspace = _make(tmp_path / "state") / "openclaw.json", _make(tmp_path / "workspace")
    private.write_text("{}")
    agents = {"defaults": {"model": "stub/a", "workspace": str(workspace)}}
    for link, target in (("config", private), ("state", private.parent)):
        (workspace / link).symlink_to(target)
    for path in (workspace / "config", workspace / "state" / "openclaw.json"):
        with pytest.raises(ConfigError, match=f"holds the symbolic link {workspace}.*could replace it"):
            check(tmp_path, agents, {"stub": {"baseUrl": NOBODY}}, private_path=path)
    assert check(tmp_path, agents, {"stub": {"baseUrl": NOBODY}}, private_path=private) == ()


def test_log_file_in_a_workspace_is_refused(tmp_path: Path) -> None:
    workspace = _make(tmp_path / "workspace")
    (workspace / "link").symlink_to(tmp_path)
    agents = {"defaults": {"model": "groq/a", "workspace": str(workspace)}}
    check(tmp_path, agents, log=tmp_path / "gateway.log")
    check(tmp_path, agents, log=workspace / "gateway.log", private_path=workspace)  # hidden there
    with pytest.raises(ConfigError, match=r"logging.file: .* is in the workspace of the agent main"):
        check(tmp_path, agents, log=workspace / "gateway.log")
    with pytest.raises(ConfigError, match="holds the symbolic link"):
        check(tmp_path, agents, log=workspace / "link" / "gateway.log")


def test_hidden_file_with_another_link_is_noted_where_commands_run(tmp_path: Path) -> None:
    private, workspace = tmp_path / "openclaw.json", _make(tmp_path / "workspace")
    private.write_text("{}")
    agents: Any = {"list": [{"id": "main", "workspace": str(workspace), "tools": {"alsoAllow": ["exec"]}}]}
    assert not any("hard link" in notice for notice in check(tmp_path, agents, private_path=private))
    (workspace / "linked").hardlink_to(private)
    noted = [notice for notice in check(tmp_path, agents, private_path=private) if "hard link" in notice]
    assert len(noted) == 1
    assert noted[0].startswith(f"tools.exec.sandbox: {private} has another hard link")
    agents["list"][0]["tools"] = {}
    assert not any("hard link" in notice for notice in check(tmp_path, agents, private_path=private))


def test_model_without_key_is_noted_with_variable(tmp_path: Path) -> None:
    (notice,) = check(tmp_path, {"defaults": {"model": "groq/llama"}})
    assert notice.startswith("agents.defaults.model: ")
    assert "set GROQ_API_KEY in its environment" in notice


def test_unusable_key_is_noted_without_its_value(tmp_path: Path) -> None:
    (notice,) = check(tmp_path, {"defaults": {"model": "groq/llama"}}, environ={"GROQ_API_KEY": "gsk\x00-hidden"})
    assert "GROQ_API_KEY is not a valid key" in notice
    assert "hidden" not in notice


def test_unusable_fallback_is_noted(tmp_path: Path) -> None:
    model = {"primary": "stub/a", "fallbacks": ["nowhere/b"]}
    (notice,) = check(tmp_path, {"defaults": {"model": model}}, {"stub": {"baseUrl": NOBODY}})
    assert notice.startswith('agents.defaults.model.fallbacks: No provider "nowhere"')
    assert notice.endswith("It is left out.")


def test_pattern_that_allows_no_model_is_noted(tmp_path: Path) -> None:
    config = {"defaults": {"modelPolicy": {"allow": ["*", "scripted/*"]}}}
    (note,) = check(tmp_path, config)
    assert note.startswith('modelPolicy.allow: "*" is neither')


def test_provider_of_unsupported_dialect_is_noted_and_refused_only_when_used(tmp_path: Path) -> None:
    providers = {"odd": {"api": "openai-responses"}, "stub": {"baseUrl": NOBODY}}
    (notice,) = check(tmp_path, {"defaults": {"model": "stub/a"}}, providers)
    assert notice.startswith('models.providers.odd.api: "openai-responses" is not supported')
    assert "(openai-completions, anthropic-messages are)" in notice
    problem = refused(tmp_path, {"defaults": {"model": "odd/a"}}, providers)
    assert 'The provider "odd" of the model odd/a has an `api` that is not supported.' in problem


@pytest.mark.parametrize(
    ("api", "path"), [("openai-completions", "/chat/completions"), ("anthropic-messages", "/v1/messages")]
)
def test_provider_without_base_url_is_refused_with_endpoint_path(tmp_path: Path, api: str, path: str) -> None:
    problem = refused(
        tmp_path, {"defaults": {"model": "scripted/echo"}}, {"p": {"api": api}, "scripted": {"api": "scripted"}}
    )
    assert problem == f'models.providers.p.baseUrl: is required with api "{api}": the URL that ends before {path}'


def test_model_of_known_host_in_unsupported_dialect_is_refused(tmp_path: Path) -> None:
    providers = {"openai": {"api": "openai-responses"}}
    assert refused(tmp_path, {"defaults": {"model": "openai/gpt-5"}}, providers).startswith("agents.defaults.model: ")


def test_invalid_workspace_name_is_noted(tmp_path: Path) -> None:
    (notice,) = check(tmp_path, {"defaults": {"workspace": f"/{'x' * 300}"}})
    assert notice.startswith("agents.defaults.workspace: the directory /xxx")


def test_missing_workspace_is_noted(tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    agents = {"defaults": {"workspace": str(missing)}, "list": [{"id": "a", "workspace": str(tmp_path)}, {"id": "b"}]}
    (notice,) = check(tmp_path, agents)
    assert notice.startswith(f"agents.defaults.workspace: the directory {missing} does not exist")


def test_workspace_that_is_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    agents = {"list": [{"id": "a", "workspace": str(tmp_path / "file")}]}
    assert refused(tmp_path, agents) == f"agents.list[0].workspace: {tmp_path / 'file'} is not a directory"


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    agents = {"list": [{"id": "a", "model": "nowhere/x"}, {"id": "b", "model": "nowhere/y"}]}
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, agents)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "agents.list[0].model",
        "agents.list[1].model",
    ]


def test_remote_mode_is_refused() -> None:
    config, _ = parse_config({"gateway": {"mode": "remote"}})
    with pytest.raises(ConfigError, match='set it to "local" to serve here'):
        check_mode(config)
    check_mode(parse_config({"gateway": {"mode": "local"}})[0])


def test_notices_are_printed_at_start(tmp_path: Path) -> None:
    config = scripted_config()
    config["models"]["providers"]["odd"] = {"api": "google-generative-ai"}
    config["agents"]["list"].append({"id": "lost", "workspace": str(tmp_path / "nothing")})
    with live_gateway(tmp_path, config) as running, running.client() as client:
        assert text_of(ask(client, "hi")) == "hi"
        refusal = ask(client, "hi", headers={"x-openclaw-model": "odd/x"})
        assert error_of(refusal) == (404, "model_not_found", "x-openclaw-model")
        assert "Note: models.providers.odd.api:" in running.output
        missing = tmp_path / "nothing"
        assert f"Note: agents.list[2].workspace: the directory {missing} does not exist" in running.output


def test_limits_by_provider_or_sender_that_never_apply_are_noted() -> None:
    deny = {"deny": ["read"]}
    limits = {"byProvider": {"openay": deny, "openai/gpt-5": deny, "Mine": deny, "local": deny}}
    data = {
        "tools": {**limits, "toolsBySender": {"*": deny, "id:7": deny}},
        "models": {"providers": {"mine": {"baseUrl": NOBODY}}},
    }
    config, _ = parse_config(data)
    assert tool_warnings(config, Roster.from_config(config)) == (
        "tools.byProvider.openay: never applies: no provider has this name",
        'tools.toolsBySender["id:7"]: never applies: callers have no sender\'s id',
    )


def test_server_that_no_agent_may_use_is_noted_and_used_one_is_not(tmp_path: Path) -> None:
    config = scripted_config()
    config["mcp"] = {"servers": {"unused": {"url": f"{NOBODY}/mcp"}, "named": {"url": f"{NOBODY}/mcp"}}}
    config["tools"] = {"profile": "coding", "alsoAllow": ["named__add"]}
    config["agents"]["defaults"]["workspace"] = str(_make(tmp_path / "workspace"))
    with live_gateway(tmp_path, config) as running:
        (note,) = [line for line in running.output.splitlines() if line.startswith("Note: mcp")]
        assert note.startswith("Note: mcp.servers.unused: no agent may use its tools")
        assert 'tools.alsoAllow: ["unused__*"]' in note


def test_workspace_tools_of_agents_without_workspace_are_noted(tmp_path: Path) -> None:
    config = scripted_config()
    config["tools"] = {"alsoAllow": ["exec"]}
    config["agents"]["list"].append({"id": "settled", "workspace": str(_make(tmp_path / "workspace"))})
    with live_gateway(tmp_path, config) as running:
        (note,) = [line for line in running.output.splitlines() if "allowed without effect" in line]
    assert note.startswith("Note: agents.defaults.workspace: exec allowed without effect: there is no workspace")
    assert "(agents: main, beta)" in note


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"defaults": {"security": "deny"}}', ["defaults.security"]),
        ('{"defaults": {"security": "full", "ask": "always"}}', ["defaults.ask"]),
        ('{"agents": {"main": {"security": "allowlist", "ask": "on-miss"}}}', ["main.security", "main.ask"]),
        ("not JSON", ["cannot be read"]),
        ("[]", ["cannot be read"]),
        ('{"version": 1, "defaults": {"security": "full", "ask": "off"}, "agents": {}}', []),
        ("{}", []),
    ],
)
def test_restrictions_of_openclaws_approvals_file_are_refused(tmp_path: Path, content: str, named: list[str]) -> None:
    state = _make(tmp_path / "state")
    (state / "exec-approvals.json").write_text(content)
    config, _ = parse_config(
        {
            "agents": {"defaults": {"workspace": str(_make(tmp_path / "work"))}},
            "tools": {"profile": "coding", "exec": {"sandbox": "off"}},
        }
    )
    with closing(ModelCatalog(config, tmp_path, {})) as catalog:
        if not named:
            check_agents(config, Roster.from_config(config), catalog, [state])
            return
        with pytest.raises(ConfigError) as caught:
            check_agents(config, Roster.from_config(config), catalog, [state])
    assert len(caught.value.problems) == len(named)
    assert all(part in problem for part, problem in zip(named, caught.value.problems, strict=True))


def test_approvals_file_does_not_matter_without_commands(tmp_path: Path) -> None:
    state = _make(tmp_path / "state")
    (state / "exec-approvals.json").write_text('{"defaults": {"security": "deny"}}')
    assert check(tmp_path, {"defaults": {"model": "stub/a"}}, {"stub": {"baseUrl": NOBODY}}, private_path=state) == ()
