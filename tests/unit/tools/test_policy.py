"""Tool policy: read-only default, lists that narrow, denials that always win."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.transcripts import Transcripts

from service.config.roster import Roster
from service.config.schema import parse_config
from service.config.source import Locations
from service.config.tools import GlobalToolsConfig
from service.gateway.build import open_toolboxes
from service.tools.policy import (
    DEFAULT_TOOLS,
    GROUPS,
    PROFILES,
    ApprovalPolicy,
    allowed_tools,
    approval_for,
    explain_tool,
    listed_tools,
    may_allow,
    policy_warnings,
)
from service.tools.policy_checks import BUILT_IN
from service.tools.process_slots import ToolSlots

FILES = ["read", "write", "edit", "ls", "find", "grep"]
SESSIONS = ["session_status", "sessions_list", "sessions_history", "agents_list"]
ALL = [*FILES, "exec", "web_fetch", *SESSIONS, "docs__search"]
NOTHING = GlobalToolsConfig()


def allowed(everywhere: GlobalToolsConfig = NOTHING, agent: GlobalToolsConfig = NOTHING) -> list[str]:
    found = allowed_tools(everywhere, agent, ALL)
    assert [name for name in ALL if explain_tool(everywhere, agent, name)[0]] == found
    return found


def test_without_configuration_nothing_writes_executes_or_reaches_network() -> None:
    assert allowed() == ["read", "ls", "find", "grep", *SESSIONS]


@pytest.mark.parametrize(
    ("profile", "tools"),
    [
        ("minimal", ["session_status"]),
        ("coding", [*FILES, "exec", "web_fetch", *SESSIONS]),
        ("messaging", ["session_status", "sessions_list", "sessions_history"]),
        ("full", ALL),
        (" Full ", ALL),
    ],
)
def test_profile_names_set_of_tools(profile: str, tools: list[str]) -> None:
    assert allowed(GlobalToolsConfig(profile=profile)) == tools


def test_unknown_profile_allows_nothing() -> None:
    assert allowed(GlobalToolsConfig(profile="codnig")) == []


def test_profile_of_agent_replaces_global_one() -> None:
    assert allowed(GlobalToolsConfig(profile="full"), GlobalToolsConfig(profile="minimal")) == ["session_status"]
    assert allowed(GlobalToolsConfig(profile="minimal"), GlobalToolsConfig(profile="full")) == ALL


def test_without_profile_allow_list_names_exactly_what_there_is() -> None:
    assert allowed(GlobalToolsConfig(allow=("write", "exec"))) == ["write", "exec"]
    assert allowed(agent=GlobalToolsConfig(allow=("web_fetch",))) == ["web_fetch"]
    assert allowed(GlobalToolsConfig(allow=())) == []


def test_allow_list_narrows_profile_and_never_widens_it() -> None:
    assert allowed(GlobalToolsConfig(profile="coding", allow=("read", "docs__search"))) == ["read"]


def test_also_allow_adds_to_profile_or_default_and_denial_still_wins() -> None:
    assert allowed(GlobalToolsConfig(profile="minimal", also_allow=("docs__*",))) == ["session_status", "docs__search"]
    assert allowed(agent=GlobalToolsConfig(also_allow=("write",))) == ["read", "write", "ls", "find", "grep", *SESSIONS]
    assert allowed(GlobalToolsConfig(also_allow=("exec",)), GlobalToolsConfig(profile="minimal")) == [
        "exec",
        "session_status",
    ]
    assert allowed(GlobalToolsConfig(deny=("exec",)), GlobalToolsConfig(also_allow=("exec", "write"))) == [
        *("read", "write", "ls", "find", "grep"),
        *SESSIONS,
    ]
    assert allowed(GlobalToolsConfig(allow=("read",)), GlobalToolsConfig(also_allow=("exec",))) == ["read"]


@pytest.mark.parametrize(
    ("config", "may"),
    [
        (GlobalToolsConfig(), False),
        (GlobalToolsConfig(profile="coding"), False),
        (GlobalToolsConfig(profile="coding", also_allow=("Docs__search",)), True),
        (GlobalToolsConfig(allow=("docs__search",)), True),
        (GlobalToolsConfig(allow=("*_search",)), True),
        (GlobalToolsConfig(allow=("do*",)), True),
        (GlobalToolsConfig(allow=("docs",)), False),
        (GlobalToolsConfig(profile="full", deny=("docs__search",)), True),
        (GlobalToolsConfig(profile="full", deny=("docs__*",)), False),
    ],
)
def test_server_is_asked_only_for_agents_that_could_be_allowed_one_of_its_tools(
    config: GlobalToolsConfig, may: bool
) -> None:
    assert may_allow(config, NOTHING, ("docs__",)) is may


def test_agent_cannot_grant_itself_what_global_lists_leave_out() -> None:
    assert allowed(GlobalToolsConfig(allow=("read",)), GlobalToolsConfig(allow=("read", "exec"))) == ["read"]
    assert allowed(GlobalToolsConfig(deny=("exec",)), GlobalToolsConfig(profile="full", allow=("exec", "ls"))) == ["ls"]


@pytest.mark.parametrize(
    ("entry", "tools"),
    [
        ("group:fs", FILES),
        ("GROUP:Runtime", ["exec"]),
        ("group:web", ["web_fetch"]),
        ("group:sessions", SESSIONS),
        ("group:memory", []),
        ("sessions_*", ["sessions_list", "sessions_history"]),
        ("docs__*", ["docs__search"]),
        ("*", ALL),
        (" Bash ", ["exec"]),
        ("[re]*", []),
        ("rea?", []),
    ],
)
def test_entries_are_names_groups_and_patterns_with_star(entry: str, tools: list[str]) -> None:
    assert allowed(GlobalToolsConfig(allow=(entry,))) == tools
    assert allowed(GlobalToolsConfig(profile="full", deny=(entry,))) == [name for name in ALL if name not in tools]


entries = st.lists(st.sampled_from([*ALL, *GROUPS, "*", "sessions_*", "nothing"]), max_size=4).map(tuple)
configs = st.builds(
    GlobalToolsConfig,
    profile=st.none() | st.sampled_from(list(PROFILES)),
    allow=st.none() | entries,
    deny=st.none() | entries,
)


@given(configs, configs)
def test_denial_wins_wherever_it_stands(everywhere: GlobalToolsConfig, agent: GlobalToolsConfig) -> None:
    tools = set(allowed(everywhere, agent))
    for config in (everywhere, agent):
        denied = GlobalToolsConfig(profile="full", allow=config.deny or ())
        assert tools.isdisjoint(allowed(denied))


@given(configs, configs)
def test_tool_that_writes_executes_or_fetches_must_be_named(
    everywhere: GlobalToolsConfig, agent: GlobalToolsConfig
) -> None:
    if everywhere.profile or agent.profile or everywhere.allow or agent.allow:
        return
    assert set(allowed(everywhere, agent)) <= set(DEFAULT_TOOLS)


def test_rule_without_effect_is_reported_with_its_key() -> None:
    everywhere = GlobalToolsConfig(
        profile="coding", allow=("read", "brwoser", "docs__*"), deny=("group:memory", "canvas")
    )
    agents = {
        "agents.list[0].tools": GlobalToolsConfig(profile="codnig"),
        "agents.list[1].tools": GlobalToolsConfig(deny=("*",)),
    }
    notices = policy_warnings(everywhere, agents, ALL[:-1], ["docs__"])
    assert [notice.partition(", ")[0] for notice in notices] == [
        'tools.allow: "brwoser" matches no tool of this gateway',
        'tools.deny: "canvas" matches no tool of this gateway',
        'tools.allow: "docs__*" is not part of the profile "coding"',
        'agents.list[0].tools.profile: "codnig" is not a profile',
    ]


def test_configuration_without_faults_has_no_notices() -> None:
    assert (
        policy_warnings(
            GlobalToolsConfig(profile="coding", deny=("exec",)), {"a": GlobalToolsConfig(allow=("read",))}, ALL
        )
        == ()
    )


def test_tool_of_server_that_was_not_asked_yet_may_be_there() -> None:
    config = GlobalToolsConfig(also_allow=("docs__search", "dosc__search"), deny=("docs__delete",))
    (notice,) = policy_warnings(config, {}, ALL[:-1], ["docs__"])
    assert notice == 'tools.alsoAllow: "dosc__search" matches no tool of this gateway, ignored'


def test_every_built_in_tool_is_in_group_and_in_full_profile(tmp_path: Path) -> None:
    agent = {"id": "main", "workspace": str(tmp_path)}
    config, _ = parse_config({"agents": {"list": [agent]}, "tools": {"profile": "full"}})
    roster = Roster.from_config(config)
    with closing(Transcripts.open(tmp_path / "sessions.db")) as store:
        toolboxes = open_toolboxes(
            config, roster, store, Locations(tmp_path / "openclaw.json", tmp_path, dev=False), {}, ToolSlots()
        )
        offered = {function.name for function in toolboxes.of(roster.agents[0]).functions()}
    assert offered == set(BUILT_IN)
    assert set(BUILT_IN) <= {name for names in GROUPS.values() for name in names}


def tools(**fields: object) -> GlobalToolsConfig:
    return GlobalToolsConfig.model_validate(fields, by_alias=True)


@pytest.mark.parametrize(
    ("rows", "name", "needed"),
    [
        ({}, "exec", ApprovalPolicy.NONE),
        ({"exec": "ask"}, "exec", ApprovalPolicy.ASK),
        ({"bash": "ask"}, "exec", ApprovalPolicy.ASK),
        ({"EXEC ": "ask"}, "exec", ApprovalPolicy.ASK),
        ({"group:fs": "ask"}, "write", ApprovalPolicy.ASK),
        ({"*": "ask", "write": "allow"}, "write", ApprovalPolicy.NONE),
        ({"write": "allow", "*": "ask"}, "write", ApprovalPolicy.ASK),
        ({"*": "deny", "write": "ask"}, "write", ApprovalPolicy.ASK),
        ({"github__*": "ask", "github__delete": "deny"}, "github__delete", ApprovalPolicy.DENIED),
        ({"github__*": "ask", "github__delete": "deny"}, "github__list", ApprovalPolicy.ASK),
        ({"github__*": "ask"}, "gitlab__list", ApprovalPolicy.NONE),
        ({"read": "ask"}, "grep", ApprovalPolicy.ASK),
        ({"re*": "ask"}, "grep", ApprovalPolicy.ASK),
        ({"*": "ask", "read": "allow"}, "grep", ApprovalPolicy.ASK),
    ],
)
def test_last_matching_approval_counts(rows: dict[str, str], name: str, needed: ApprovalPolicy) -> None:
    assert approval_for(tools(approvals=rows), NOTHING, name) is needed
    assert approval_for(NOTHING, tools(approvals=rows), name) is needed


@pytest.mark.parametrize("entry", ["read", "re*", "*ead", " READ"])
def test_deny_of_read_includes_grep(entry: str) -> None:
    assert not {"read", "grep"} & set(allowed(agent=GlobalToolsConfig(profile="coding", deny=(entry,))))
    assert listed_tools((entry,), FILES) == ("read", "grep")


def test_stricter_of_global_and_agents_approval_applies() -> None:
    rules = ("allow", "ask", "deny")
    for everywhere in rules:
        for own in rules:
            needed = approval_for(tools(approvals={"*": everywhere}), tools(approvals={"write": own}), "write")
            expected = max(everywhere, own, key=rules.index)
            assert needed is approval_for(tools(approvals={"write": expected}), NOTHING, "write")


@pytest.mark.parametrize(
    ("everywhere", "own", "needed"),
    [
        ({"ask": "always"}, {}, ApprovalPolicy.ASK_ALWAYS),
        ({"ask": "on-miss"}, {}, ApprovalPolicy.ASK),
        ({"mode": "ask"}, {}, ApprovalPolicy.ASK),
        ({"ask": "off"}, {}, ApprovalPolicy.NONE),
        ({}, {"ask": "always"}, ApprovalPolicy.ASK_ALWAYS),
        ({"ask": "always"}, {"ask": "off"}, ApprovalPolicy.NONE),
        ({"mode": "ask"}, {"mode": "full"}, ApprovalPolicy.NONE),
        ({"ask": "always"}, {"mode": "full"}, ApprovalPolicy.ASK_ALWAYS),
        ({"mode": "ask"}, {"ask": "off"}, ApprovalPolicy.ASK),
    ],
)
def test_exec_ask_and_mode_need_approval(
    everywhere: dict[str, str], own: dict[str, str], needed: ApprovalPolicy
) -> None:
    assert approval_for(tools(exec=everywhere), tools(exec=own), "exec") is needed
    assert approval_for(tools(exec=everywhere), tools(exec=own), "write") is ApprovalPolicy.NONE
    strict = tools(exec=everywhere, approvals={"exec": "deny"})
    assert approval_for(strict, tools(exec=own), "exec") is ApprovalPolicy.DENIED


def test_denied_tools_are_not_allowed_and_servers_without_others_not_contacted() -> None:
    everywhere = tools(profile="full", approvals={"write": "deny", "docs__*": "deny"})
    assert set(ALL) - set(allowed(everywhere)) == {"write", "docs__search"}
    assert not may_allow(everywhere, NOTHING, ("docs__",))
    assert may_allow(everywhere, NOTHING, ("notes__",))
    assert may_allow(tools(profile="full", approvals={"docs__*": "deny", "docs__search": "ask"}), NOTHING, ("docs__",))
    assert may_allow(tools(profile="full", approvals={"docs__search": "deny"}), NOTHING, ("docs__",))


def test_approval_of_unknown_tool_is_reported() -> None:
    (warning,) = policy_warnings(tools(profile="full", approvals={"exce": "ask", "write": "ask"}), {}, BUILT_IN)
    assert warning.startswith('tools.approvals: "exce" matches no tool')


def test_reason_names_the_list_that_has_the_tool() -> None:
    everywhere = GlobalToolsConfig.model_validate({"alsoAllow": ["web_fetch"]})
    agent = GlobalToolsConfig.model_validate({"alsoAllow": ["write", "read"]})
    reasons = {name: explain_tool(everywhere, agent, name) for name in ("read", "write", "web_fetch", "exec")}
    assert reasons == {
        "read": (True, "in the default tools"),
        "write": (True, "in the agent's tools.alsoAllow"),
        "web_fetch": (True, "in tools.alsoAllow"),
        "exec": (False, "not in the default tools or alsoAllow"),
    }
