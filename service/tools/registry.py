"""Each agent's toolbox: the built-in tools its policy allows, and those of the MCP servers it may use."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from functools import partial

from service.config.roster import Agent, Roster
from service.config.schema import Config
from service.config.tools import ToolsConfig
from service.core import concurrency
from service.tools.mcp.servers import McpServers, McpTool
from service.tools.policy import ApprovalPolicy, allowed_tools, approval_for, listed_tools, may_allow
from service.tools.policy_checks import to_prefixes
from service.tools.tool import BuiltInTool, Tool
from service.tools.toolbox import Toolbox

logger = logging.getLogger("openclaw.tools")

#: OpenAI's limit for one request, which includes the caller's functions.
MAX_TOOLS = 128

_MAX_TOOLBOXES = 256

#: Each contact starts a process or two; too many at once would all be slow.
_CONCURRENT_CONTACTS = 3


class ToolRegistry:
    """The toolboxes of all agents of a configuration."""

    def __init__(self, config: Config, roster: Roster, built_in: Collection[BuiltInTool], mcp: McpServers) -> None:
        self._global = config.tools
        self._denied_to_callers = config.gateway.tools.deny
        self._own = {agent_id: agent.tools for agent_id, agent in config.agents.roster.items()}
        self._mcp = mcp
        self._built_in = {
            agent.id: self._allowed(agent, [t for t in built_in if agent.workspace or not t.access.needs_workspace])
            for agent in roster.agents
        }
        self._made: dict[tuple[str, tuple[str, ...]], tuple[tuple[Tool, ...], Toolbox]] = {}
        self._omitted: dict[str, set[str]] = {}
        self._reported: set[str] = set()
        self._servers = {agent.id: self._servers_of(agent) for agent in roster.agents}

    def of(self, agent: Agent, caller_functions: Collection[str] = (), models: Collection[str] = ()) -> Toolbox:
        """Return the agent's tools in a run that may use any of `models`.

        Waits for the agent's MCP servers and skips those that fail. Tools with the name of one of `caller_functions`
        are taken away, unless `callerConflicts` refuses such requests. Together with these functions there are at most
        `MAX_TOOLS`; omitted tools are logged.
        """
        replaced = caller_functions if self._global.caller_conflicts == "caller" else ()
        tools = self._toolbox_of(agent, models).without(replaced)
        offered = tools.first(max(0, MAX_TOOLS - len(caller_functions)))
        if offered is not tools:
            self._log_omitted(agent, [tool.name for tool in tools.tools if tool.name not in offered])
        return offered

    def _toolbox_of(self, agent: Agent, models: Collection[str]) -> Toolbox:
        """Return all the agent's tools; another toolbox is made only when a server lists other tools."""
        limited = bool(self._global.by_provider or self._policy(agent).by_provider)
        key = (agent.id, tuple(models) if limited else ())
        listed = self._mcp.list_tools(servers) if (servers := self._servers[agent.id]) else ()
        made = self._made.get(key)
        if made is None or made[0] is not listed:
            built_in = self._built_in[agent.id]
            taken = {tool.name for tool in built_in}
            remote = [tool for tool in self._allowed(agent, listed) if tool.name not in taken]
            tools = self._allowed(agent, (*built_in, *remote), models) if limited else (*built_in, *remote)
            toolbox = Toolbox(tools, reported=self._reported, approvals=self._approvals(agent, tools))
            if len(self._made) >= _MAX_TOOLBOXES:  # callers may name any model
                self._made.clear()
            made = self._made[key] = (listed, toolbox)
        return made[1]

    def invocable(self, agent: Agent, models: Collection[str]) -> Toolbox:
        """Return the tools that callers may call themselves: the agent's, without those of `gateway.tools.deny`."""
        tools = self.of(agent, (), models)
        denied = listed_tools(self._denied_to_callers, [_names_of(tool) for tool in tools.tools])
        return tools.without({name for names in denied for name in names})

    @property
    def server_states(self) -> dict[str, str]:
        """The states of the MCP servers that agents may use, by their names."""
        used = {server for servers in self._servers.values() for server in servers}
        return {name: state for name, state in self._mcp.states.items() if name in used}

    def contact_servers(self) -> None:
        """List the tools of all servers that an agent may use in the background, a few servers at a time."""
        used = sorted({server for servers in self._servers.values() for server in servers})
        listings = [partial(self._mcp.list_tools, (server,), None) for server in used]
        concurrency.spawn(concurrency.run_concurrently, listings, _CONCURRENT_CONTACTS)

    def adopt(self, older: ToolRegistry) -> None:
        """Take over the MCP servers of `older` whose configuration is the same here."""
        self._mcp.adopt(older._mcp)  # same class

    def close(self) -> None:
        """Stop the MCP servers that were not adopted. Idempotent."""
        self._mcp.close()

    def _log_omitted(self, agent: Agent, names: Sequence[str]) -> None:
        logged = self._omitted.setdefault(agent.id, set())
        if logged.issuperset(names):
            return  # each name is logged once, not with every run
        logged.update(names)
        text = "The agent %s has more than the %d tools that models accept; omitted: %s"
        logger.warning(text, agent.id, MAX_TOOLS, ", ".join(names))

    def _allowed(self, agent: Agent, tools: Iterable[Tool], models: Collection[str] = ()) -> tuple[Tool, ...]:
        by_name = {_names_of(tool): tool for tool in tools}
        return tuple(by_name[name] for name in allowed_tools(self._global, self._policy(agent), by_name, models))

    def _approvals(self, agent: Agent, tools: Iterable[Tool]) -> dict[str, ApprovalPolicy]:
        return {tool.name: approval_for(self._global, self._policy(agent), _names_of(tool)) for tool in tools}

    def _servers_of(self, agent: Agent) -> tuple[str, ...]:
        policy = self._policy(agent)
        return tuple(name for name in self._mcp.names if may_allow(self._global, policy, to_prefixes(name)))

    def _policy(self, agent: Agent) -> ToolsConfig:
        return self._own.get(agent.id, ToolsConfig())


def _names_of(tool: Tool) -> tuple[str, ...]:
    """Return the names that lists may call a tool by."""
    return (tool.name, tool.full_name) if isinstance(tool, McpTool) else (tool.name,)
