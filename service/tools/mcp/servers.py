"""Tools of MCP servers, named `<server>__<tool>`.

Servers that an agent may use are contacted concurrently when the gateway starts and before each run of such an agent.
Other servers are never contacted.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import is_
from pathlib import Path
from typing import Any

from service.core import concurrency
from service.core.work_context import WorkContext, current_work
from service.tools.mcp.connection import ConnectionLostError
from service.tools.mcp.server import LISTING_WAIT_SECONDS, McpEndpoint, McpServer, RemoteTool
from service.tools.tool import Tool, ToolContext, ToolError

logger = logging.getLogger("openclaw.tools")

_MAX_NAME_CHARS = 64
_INVALID_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")
_DIGEST_CHARS = 8
_TIMEOUT_SLACK_SECONDS = 6.0  # the previous connection may still be closing


class McpTool:
    """A tool of an MCP server; `name` is its name for the model, and `full_name` has what the server calls it."""

    def __init__(self, name: str, server: McpServer, remote: RemoteTool) -> None:
        self.name = name
        self.full_name = f"{server.endpoint.name}__{remote.name}"
        self.description = remote.description
        self.parameters: Mapping[str, Any] = remote.parameters
        #: Longer than the server's limit, which has the better error message and stops a server that hangs.
        self.timeout_seconds = server.endpoint.timeout_seconds + _TIMEOUT_SLACK_SECONDS
        #: True if the server declares the tool read-only.
        self.parallel = remote.read_only
        self._server = server
        self._remote_name = remote.name

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:  # noqa: ARG002 - servers get no context
        """Call the tool on its server; see `Tool.run`."""
        return self._server.call_tool(self._remote_name, arguments)


class McpServers:
    """All configured servers. Their child processes log to `logs_dir` (temporary files by default)."""

    def __init__(self, endpoints: Iterable[McpEndpoint], logs_dir: Path | None = None) -> None:
        self._servers = {
            endpoint.name: McpServer(endpoint, logs_dir and logs_dir / f"mcp-{to_tool_name(endpoint.name)}.log")
            for endpoint in endpoints
        }
        self._adopted: set[str] = set()
        self._missing: set[str] = set()
        self._made: dict[tuple[str, ...], tuple[Sequence[tuple[RemoteTool, ...]], tuple[Tool, ...]]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the configured servers, reachable or not."""
        return tuple(self._servers)

    @property
    def states(self) -> dict[str, str]:
        """The state of each server by its name: "connected", "connecting", "idle" or "failed"."""
        return {name: server.state for name, server in self._servers.items()}

    def list_tools(
        self, servers: Collection[str], wait_seconds: float | None = LISTING_WAIT_SECONDS
    ) -> tuple[Tool, ...]:
        """Return the tools of the named servers with distinct names, the same object while these list the same.

        Failing servers are skipped and logged. Waits for the slowest server, at most `wait_seconds` (`None`: its
        `timeout_seconds`). A slower one is not waited for again until it responds or is retried.
        """
        selected = [server for name, server in self._servers.items() if name in servers]
        listings: dict[str, tuple[RemoteTool, ...]] = {}
        work = current_work.get()
        waiting = []
        for server in selected:
            if server.is_listed:
                self._list_into(work, server, listings, wait_seconds)
            else:
                waiting.append(concurrency.spawn(self._list_into, work, server, listings, wait_seconds))
        for listing in waiting:
            listing.join()
        return self._to_tools(selected, [listings.get(server.endpoint.name, ()) for server in selected])

    def _to_tools(self, servers: Sequence[McpServer], listings: Sequence[tuple[RemoteTool, ...]]) -> tuple[Tool, ...]:
        """Return the tools with distinct names, those made before if they are for the same listings."""
        key = tuple(server.endpoint.name for server in servers)
        before, made = self._made.get(key, ((), ()))
        if len(before) != len(listings) or not all(map(is_, before, listings)):
            tools: dict[str, Tool] = {}
            for server, listing in zip(servers, listings, strict=True):
                for remote in listing:
                    name = _distinct_name(server.endpoint.name, remote.name, tools)
                    tools[name] = McpTool(name, server, remote)
            made = tuple(tools.values())
            self._made[key] = (listings, made)
        return made

    def _list_into(
        self,
        work: WorkContext,
        server: McpServer,
        listings: dict[str, tuple[RemoteTool, ...]],
        wait_seconds: float | None,
    ) -> None:
        current_work.set(work)
        name = server.endpoint.name
        try:
            listings[name] = server.list_tools(wait_seconds)
        except ToolError as error:
            # Logged once, not with every run; a lost connection is logged elsewhere in detail.
            if name not in self._missing and not isinstance(error.__cause__, ConnectionLostError):
                logger.warning("Agents run without the tools of an MCP server: %s", error)
            self._missing.add(name)
        else:
            if name in self._missing:
                logger.info("The tools of the MCP server %s are available", name)
            self._missing.discard(name)

    def adopt(self, older: McpServers) -> None:
        """Take over the servers of `older` whose configuration is the same here; `older.close` stops the others."""
        for name, server in older._servers.items():  # same class
            if name in self._servers and self._servers[name].endpoint == server.endpoint:
                self._servers[name] = server
                older._adopted.add(name)

    def close(self) -> None:
        """Stop all servers that were not adopted concurrently, within about 5 s. Idempotent."""
        own = [server for name, server in self._servers.items() if name not in self._adopted]
        for closing in [concurrency.spawn(server.close) for server in own]:
            closing.join()


def to_tool_name(*parts: str, distinct: str = "") -> str:
    """Join `parts` with two underscores to a valid function name: 1 to 64 letters, digits, `_` and `-`.

    Long names are truncated. With `distinct` the name ends with a digest of that string.
    """
    name = _INVALID_CHARACTER.sub("_", "__".join(parts))
    if not distinct:
        return name[:_MAX_NAME_CHARS] or "_"
    digest = hashlib.sha256(distinct.encode(errors="replace")).hexdigest()[:_DIGEST_CHARS]
    return f"{name[: _MAX_NAME_CHARS - _DIGEST_CHARS - 1]}_{digest}"


def _distinct_name(server: str, tool: str, taken: Collection[str]) -> str:
    whole = to_tool_name(server, tool)
    if len(f"{server}__{tool}") <= _MAX_NAME_CHARS and whole not in taken:
        return whole
    return to_tool_name(server, tool, distinct=f"{server}\0{tool}")
