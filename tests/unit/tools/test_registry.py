"""Lists of tools, applied to the tools of MCP servers, which have other names for models than for their servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import support

from service.config.roster import Roster
from service.config.schema import Config
from service.tools.exec import ExecTool
from service.tools.mcp.server import McpEndpoint
from service.tools.mcp.servers import McpServers
from service.tools.policy import ApprovalPolicy
from service.tools.policy_checks import tool_warnings
from service.tools.registry import MAX_TOOLS, ToolRegistry
from service.tools.toolbox import Toolbox

RAW_SERVER = str(Path(support.__file__).with_name("mcp_raw_server.py"))
NAME, LONG_NAME = "odd one__bad name!", f"odd one__{'n' * 100}"
#: How models have them.
SHORT, CUT = "odd_one__bad_name_", f"odd_one__{'n' * 46}_"


@pytest.fixture(scope="module")
def servers() -> Iterator[McpServers]:
    opened = McpServers([McpEndpoint("odd one", command=sys.executable, args=(RAW_SERVER, "wild"), deny=("bare",))])
    yield opened
    opened.close()


def config_of(deny_to_callers: tuple[str, ...] = (), **tools: Any) -> Config:
    return Config.model_validate(
        {
            "gateway": {"tools": {"deny": deny_to_callers}},
            "mcp": {"servers": {"odd one": {"command": sys.executable, "args": [RAW_SERVER, "wild"]}}},
            "tools": tools,
        }
    )


def registry_of(servers: McpServers, config: Config) -> ToolRegistry:
    return ToolRegistry(config, Roster.from_config(config), (), servers)


def names(toolbox: Toolbox) -> set[str]:
    return {tool.name if len(tool.name) < 60 else tool.name[:-8] for tool in toolbox.tools}


def offered(servers: McpServers, config: Config) -> Toolbox:
    return registry_of(servers, config).of(Roster.from_config(config).agents[0])


@pytest.mark.parametrize(
    ("listed", "meant"),
    [
        ((NAME,), {SHORT}),
        ((SHORT,), {SHORT}),
        ((LONG_NAME,), {CUT}),
        (("odd one__*",), {SHORT, CUT}),
        (("odd_one__*",), {SHORT, CUT}),
        (("*" + "n" * 90,), {CUT}),
        (("odd one__bad", "odd.one__*", LONG_NAME[:-1]), set()),
    ],
)
def test_lists_call_tools_as_models_or_as_servers_do(
    servers: McpServers, listed: tuple[str, ...], meant: set[str]
) -> None:
    both = {SHORT, CUT}
    assert names(offered(servers, config_of(alsoAllow=["odd_one__*"]))) == both
    assert names(offered(servers, config_of(alsoAllow=listed))) == meant
    assert names(offered(servers, config_of(alsoAllow=["odd_one__*"], deny=listed))) == both - meant

    asking = offered(servers, config_of(alsoAllow=["odd_one__*"], approvals=dict.fromkeys(listed, "ask")))
    asked = [tool for tool in asking.tools if asking.approval_of(tool.name) is ApprovalPolicy.ASK]
    assert names(Toolbox(asked)) == meant

    config = config_of(listed, alsoAllow=["odd_one__*"])
    agent = Roster.from_config(config).agents[0]
    assert names(registry_of(servers, config).invocable(agent, ())) == both - meant


@pytest.mark.parametrize("entry", [NAME, SHORT, "odd one__*", "odd.one__*"])
def test_only_entry_that_calls_no_tool_by_its_name_is_warned_about(entry: str) -> None:
    config = config_of(alsoAllow=["odd_one__*"], deny=[entry])
    warned = [text for text in tool_warnings(config, Roster.from_config(config)) if "matches no tool" in text]
    assert bool(warned) == (entry == "odd.one__*")


def test_commands_need_the_approval_of_exec_ask(tmp_path: Path) -> None:
    defaults = {"workspace": str(tmp_path)}
    config = Config.model_validate(
        {"agents": {"defaults": defaults}, "tools": {"profile": "full", "exec": {"ask": "always"}}}
    )
    roster = Roster.from_config(config)
    toolbox = ToolRegistry(config, roster, (ExecTool({}),), McpServers([])).of(roster.agents[0])
    assert toolbox.approval_of("exec") is ApprovalPolicy.ASK_ALWAYS


def test_toolbox_is_made_once_for_the_same_tools(servers: McpServers) -> None:
    config = config_of(alsoAllow=["odd_one__*"])
    registry, agent = registry_of(servers, config), Roster.from_config(config).agents[0]
    first = registry.of(agent)
    assert registry.of(agent) is first
    for server in servers._servers.values():
        server._forget_listing()
    assert registry.of(agent) is first  # the server has listed the same tools again

    others = [f"f{number}" for number in range(MAX_TOOLS - 2)]
    assert registry.of(agent, others) is first
    beside = registry.of(agent, [*others, SHORT])
    assert (names(beside), beside.replaced) == ({CUT}, (SHORT,))
    assert (names(registry.of(agent, [*others, "f"])), registry.of(agent, [*others, "f"]).replaced) == ({SHORT}, ())
    assert registry.of(agent) is first
