"""Each agent's toolbox: the built-in tools its policy allows, and those of the MCP servers it may use."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from functools import partial

from service.config.agents import Agent, Roster
from service.config.schema import Config
from service.config.tools import ToolsConfig
from service.core import concurrency
from service.tools.mcp.servers import McpServers
from service.tools.policy import allowed_tools, may_allow
from service.tools.policy_checks import to_prefix
from service.tools.tool import Tool
from service.tools.toolbox import Toolbox

logger = logging.getLogger("openclaw.tools")

#: What OpenAI takes in one request, the caller's functions included.
MAX_TOOLS = 128

#: Each is a program or two that start: many at once would all be late.
_CONTACTED_AT_ONCE = 3


class ToolRegistry:
    """The toolboxes of all agents of a configuration.

    `in_workspace` are the tools that only an agent with a workspace has, `anywhere` those that every agent may have.
    """

    def __init__(
        self, config: Config, roster: Roster, in_workspace: Iterable[Tool], anywhere: Iterable[Tool], mcp: McpServers
    ) -> None:
        self._global = config.tools
        self._own = {agent_id: agent.tools for agent_id, agent in config.agents.roster.items()}
        self._mcp = mcp
        files, others = tuple(in_workspace), tuple(anywhere)
        self._built_in = {
            agent.id: self._allowed(agent, (*(files if agent.workspace else ()), *others)) for agent in roster.agents
        }
        self._fixed = {agent_id: Toolbox(tools) for agent_id, tools in self._built_in.items()}
        self._left_out: dict[str, set[str]] = {}
        self._reported: set[str] = set()
        self._servers = {agent.id: self._servers_of(agent) for agent in roster.agents}

    def of(self, agent: Agent, beside: int = 0, models: Collection[str] = ()) -> Toolbox:
        """Return what the agent may use in a run that may ask any of `models`.

        Waits for the MCP servers it may use, and does without those that fail. With `beside` functions of the caller's
        there are no more than `MAX_TOOLS`; the log names what is left out.
        """
        servers, built_in = self._servers[agent.id], self._built_in[agent.id]
        room = max(0, MAX_TOOLS - beside)
        limited = bool(self._global.by_provider or self._policy(agent).by_provider)
        if not servers and len(built_in) <= room and not limited:
            return self._fixed[agent.id]
        taken = {tool.name for tool in built_in}
        remote = [tool for tool in self._allowed(agent, self._mcp.list_tools(servers)) if tool.name not in taken]
        tools = self._allowed(agent, (*built_in, *remote), models) if limited else (*built_in, *remote)
        self._tell_left_out(agent, tuple(tool.name for tool in tools[room:]))
        return Toolbox(tools[:room], reported=self._reported)

    def contact_servers(self) -> None:
        """Begin to list the tools of all servers that an agent may use, a few at a time, without waiting."""
        used = sorted({server for servers in self._servers.values() for server in servers})
        listings = [partial(self._mcp.list_tools, (server,), None) for server in used]
        concurrency.spawn(concurrency.run_concurrently, listings, _CONTACTED_AT_ONCE)

    def adopt(self, older: ToolRegistry) -> None:
        """Go on with the MCP servers of `older` that are configured the same here."""
        self._mcp.adopt(older._mcp)  # one of its own kind

    def close(self) -> None:
        """End the MCP servers that nobody adopted. Twice is a no-op."""
        self._mcp.close()

    def _tell_left_out(self, agent: Agent, names: tuple[str, ...]) -> None:
        told = self._left_out.setdefault(agent.id, set())
        if told.issuperset(names):
            return  # each is named once, not with every run, however many functions callers bring
        told.update(names)
        text = "The agent %s has more tools than the %d that models take; left out: %s"
        logger.warning(text, agent.id, MAX_TOOLS, ", ".join(names))

    def _allowed(self, agent: Agent, tools: Iterable[Tool], models: Collection[str] = ()) -> tuple[Tool, ...]:
        by_name = {tool.name: tool for tool in tools}
        return tuple(by_name[name] for name in allowed_tools(self._global, self._policy(agent), by_name, models))

    def _servers_of(self, agent: Agent) -> tuple[str, ...]:
        return tuple(name for name in self._mcp.names if may_allow(self._global, self._policy(agent), to_prefix(name)))

    def _policy(self, agent: Agent) -> ToolsConfig:
        return self._own.get(agent.id, ToolsConfig())
