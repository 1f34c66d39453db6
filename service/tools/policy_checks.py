"""Warnings about tool settings without effect, each with its key. No MCP server is started."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping

from service.config.key_paths import format_path
from service.config.roster import Agent, Roster
from service.config.schema import Config
from service.config.tools import GlobalToolsConfig, ToolsConfig
from service.core.dataclass import record
from service.models.catalog import EMBEDDED_PROVIDER
from service.models.known_hosts import KNOWN_HOSTS
from service.tools.built_in import BUILT_IN_TOOLS
from service.tools.exec_sandbox import ExecSandbox
from service.tools.mcp.results import INSTALL_MCP
from service.tools.mcp.sandbox import McpSandbox
from service.tools.mcp.servers import to_tool_name
from service.tools.policy import allowed_tools, explain_tool, may_allow, policy_warnings

#: Separates the name of an MCP server from the name of its tool.
_SEPARATOR = "__"

#: Built-in tools that need a workspace.
IN_WORKSPACE = tuple(tool.name for tool in BUILT_IN_TOOLS if tool.access.needs_workspace)

#: Built-in tools that change files.
_CHANGING = ("write", "edit", "exec")

#: All built-in tools.
BUILT_IN = tuple(tool.name for tool in BUILT_IN_TOOLS)


def tool_warnings(config: Config, roster: Roster) -> tuple[str, ...]:
    """Return warnings about rules, unused MCP servers, missing and nested workspaces, and the sandbox."""
    entries = config.agents.roster
    own = {format_path((*config.agents.path_of(agent_id), "tools")): entries[agent_id].tools for agent_id in entries}
    prefixes = [prefix for server in config.mcp.servers for prefix in to_prefixes(server)]
    return (
        *policy_warnings(config.tools, own, BUILT_IN, prefixes),
        *_unmatched_limits(config, {"tools": config.tools, **own}),
        *_missing_package(config),
        *_unused_servers(config, roster),
        *_without_workspace(config, roster),
        *_nested_workspaces(config, roster),
        *_sandbox(config, roster),
        *_server_sandboxes(config, roster),
    )


@record
class ExplainedTool:
    """A tool, or all those of an MCP server as `server__*`; `reason` is why an agent may use it or not."""

    name: str
    is_allowed: bool
    reason: str


def explain_tools(config: Config, agent: Agent, policy: ToolsConfig) -> tuple[ExplainedTool, ...]:
    """Explain for each built-in tool and each MCP server whether `agent`, whose tools have `policy`, may use it."""
    models = [ref for ref in (agent.model, *agent.fallbacks) if ref is not None]
    explained = []
    for tool in BUILT_IN_TOOLS:
        is_allowed, reason = explain_tool(config.tools, policy, tool.name, models)
        if is_allowed and tool.access.needs_workspace and agent.workspace is None:
            is_allowed, reason = False, "the agent has no workspace"
        explained.append(ExplainedTool(tool.name, is_allowed, reason))
    for server in config.mcp.servers:
        is_allowed = may_allow(config.tools, policy, to_prefixes(server))
        reason = "some of them, as the lists say" if is_allowed else "no list that applies has a tool of this server"
        explained.append(ExplainedTool(f"{to_prefixes(server)[0]}*", is_allowed, reason))
    return tuple(explained)


def to_prefixes(server: str) -> tuple[str, str]:
    """Return the common prefixes of the names of an MCP server's tools: as models have them, and as the server does."""
    return f"{to_tool_name(server)}{_SEPARATOR}", f"{server}{_SEPARATOR}"


def _missing_package(config: Config) -> Iterator[str]:
    if config.mcp.servers and importlib.util.find_spec("mcp") is None:
        yield f"mcp.servers: MCP servers need a package that is not installed. {INSTALL_MCP}"


def _unmatched_limits(config: Config, places: Mapping[str, ToolsConfig]) -> Iterator[str]:
    """Warn of limits by provider or sender that never apply."""
    providers = {name.lower() for name in (*config.models.providers, *KNOWN_HOSTS, EMBEDDED_PROVIDER)}
    for place, tools in places.items():
        for name in tools.by_provider:
            if name.strip().lower().partition("/")[0] not in providers:
                yield f"{place}.{format_path(('byProvider', name))}: never applies: no provider has this name"
        for name in tools.tools_by_sender:
            if name != "*":
                yield f"{place}.{format_path(('toolsBySender', name))}: never applies: callers have no sender's id"


def list_users(server: str, config: Config, roster: Roster) -> list[str]:
    """Return the ids of the agents that may use tools of an MCP server."""
    ids = (agent.id for agent in roster.agents)
    return [one for one in ids if may_allow(config.tools, _policy_of(config, one), to_prefixes(server))]


def _unused_servers(config: Config, roster: Roster) -> Iterator[str]:
    for server in config.mcp.servers:
        if not list_users(server, config, roster):
            key = format_path(("mcp", "servers", server))
            yield (
                f"{key}: no agent may use its tools, so it is never contacted; allow them, for example "
                f'tools.alsoAllow: ["{to_prefixes(server)[0]}*"], for all agents or for one'
            )


def _without_workspace(config: Config, roster: Roster) -> Iterator[str]:
    default = allowed_tools(GlobalToolsConfig(), ToolsConfig(), IN_WORKSPACE)
    agents_with: dict[tuple[str, ...], list[str]] = {}
    for agent in roster.agents:
        if agent.workspace is None:
            allowed = allowed_tools(config.tools, _policy_of(config, agent.id), IN_WORKSPACE)
            if named := tuple(name for name in allowed if name not in default):
                agents_with.setdefault(named, []).append(agent.id)
    for named, agents in agents_with.items():
        yield (
            f"agents.defaults.workspace: {', '.join(named)} allowed without effect: there is no workspace to "
            f"work in (agents: {', '.join(agents)}); set one here or for each agent"
        )


def _nested_workspaces(config: Config, roster: Roster) -> Iterator[str]:
    for inner in roster.agents:
        for outer in roster.agents:
            if inner.workspace_root is None or outer.workspace_root is None or inner.workspace == outer.workspace:
                continue
            means = allowed_tools(config.tools, _policy_of(config, outer.id), _CHANGING)
            if means and outer.workspace_root in inner.workspace_root.parents:
                entry = config.agents.roster.get(inner.id)
                is_own = entry is not None and entry.workspace is not None
                where = config.agents.path_of(inner.id) if is_own else ("agents", "defaults")
                yield (
                    f"{format_path((*where, 'workspace'))}: {inner.workspace} is inside the workspace of {outer.id}, "
                    f"which can change it with {', '.join(means)}; name directories apart, or trust both agents alike"
                )


def _sandbox(config: Config, roster: Roster) -> Iterator[str]:
    if may_run_commands(config, roster):
        yield f"tools.exec.sandbox: {ExecSandbox.choose(config.tools.exec).to_text()}"


def _server_sandboxes(config: Config, roster: Roster) -> Iterator[str]:
    unconfined = set(unconfined_programs(config, roster))
    for name, server in config.mcp.servers.items():
        key = format_path(("mcp", "servers", name, "sandbox"))
        if server.sandbox != "off":
            yield f"{key}: {McpSandbox(server.sandbox, server.network).to_text()}"
        elif key in unconfined:
            yield (
                f'{key}: "off": the server can do what the gateway\'s user can, whatever its tools are; edits of this '
                "file need a restart"
            )


def unconfined_programs(config: Config, roster: Roster) -> tuple[str, ...]:
    """Return the keys by which programs that agents use run without a sandbox: they reach the gateway's own files."""
    keys = ["tools.exec.sandbox"] if config.tools.exec.sandbox == "off" and may_run_commands(config, roster) else []
    for name, server in config.mcp.servers.items():
        if server.command is not None and server.sandbox == "off" and list_users(name, config, roster):
            keys.append(format_path(("mcp", "servers", name, "sandbox")))
    return tuple(keys)


def may_run_commands(config: Config, roster: Roster) -> bool:
    """Return whether an agent has the tool `exec` and a workspace to run commands in."""
    return any(
        agent.workspace is not None and allowed_tools(config.tools, _policy_of(config, agent.id), ["exec"])
        for agent in roster.agents
    )


def _policy_of(config: Config, agent_id: str) -> ToolsConfig:
    entry = config.agents.roster.get(agent_id)
    return ToolsConfig() if entry is None else entry.tools
