"""The tools of MCP servers, as any other tool: `<server>__<tool>`.

The servers that an agent may use are contacted, side by side, once the gateway serves and whenever such an agent is
about to run; the others never.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from service.core import concurrency
from service.tools.mcp.connection import ConnectionLostError
from service.tools.mcp.server import LISTING_WAIT_SECONDS, McpEndpoint, McpServer, RemoteTool
from service.tools.tool import Tool, ToolContext, ToolError

logger = logging.getLogger(__name__)

_MAX_NAME_CHARS = 64
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")
_DIGEST_CHARS = 8
_TIMEOUT_SLACK_SECONDS = 6.0  # the last connection may still be ending


class McpTool:
    """A tool that an MCP server runs, which the model knows as `name`."""

    def __init__(self, name: str, server: McpServer, remote: RemoteTool) -> None:
        self.name = name
        self.description = remote.description
        self.parameters: Mapping[str, Any] = remote.parameters
        #: The server's own limit comes first: it tells more and knows what to do about a server that hangs.
        self.timeout_seconds = server.endpoint.timeout_seconds + _TIMEOUT_SLACK_SECONDS
        #: Only what the server declares to change nothing.
        self.parallel = remote.read_only
        self._server = server
        self._remote_name = remote.name

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:  # noqa: ARG002 - the server has its own
        """Have the server run it; see `Tool.run` for the contract."""
        return self._server.call_tool(self._remote_name, arguments)


class McpServers:
    """All configured servers; their children's logs go to `logs_dir` (temporary files by default)."""

    def __init__(self, endpoints: Iterable[McpEndpoint], logs_dir: Path | None = None) -> None:
        self._servers = {
            endpoint.name: McpServer(endpoint, logs_dir and logs_dir / f"mcp-{to_tool_name(endpoint.name)}.log")
            for endpoint in endpoints
        }
        self._adopted: set[str] = set()
        self._missing: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The configured servers, whether they work or not."""
        return tuple(self._servers)

    def list_tools(
        self, servers: Collection[str], wait_seconds: float | None = LISTING_WAIT_SECONDS
    ) -> tuple[Tool, ...]:
        """The tools of the named servers, their names distinct; a server that fails is left out, the log says why.

        Waits for the slowest one, no longer than `wait_seconds` (`None`: its `timeout_seconds`); one that is slower
        is waited for no more until it answers or is tried again.
        """
        asked = [server for name, server in self._servers.items() if name in servers]
        listings: dict[str, tuple[RemoteTool, ...]] = {}
        waiting = [concurrency.spawn(self._list_into, server, listings, wait_seconds) for server in asked]
        for listing in waiting:
            listing.join()
        tools: dict[str, Tool] = {}
        for server in asked:
            for remote in listings.get(server.endpoint.name, ()):
                name = _distinct_name(server.endpoint.name, remote.name, tools)
                tools[name] = McpTool(name, server, remote)
        return tuple(tools.values())

    def _list_into(
        self, server: McpServer, listings: dict[str, tuple[RemoteTool, ...]], wait_seconds: float | None
    ) -> None:
        name = server.endpoint.name
        try:
            listings[name] = server.list_tools(wait_seconds)
        except ToolError as error:
            # Said once, not with every run; a lost connection is in the log, with more.
            if name not in self._missing and not isinstance(error.__cause__, ConnectionLostError):
                logger.warning("Agents do without the tools of an MCP server: %s", error)
            self._missing.add(name)
        else:
            if name in self._missing:
                logger.info("The MCP server %s offers its tools now", name)
            self._missing.discard(name)

    def adopt(self, older: McpServers) -> None:
        """Go on with the servers of `older` that are configured the same here; it ends the others."""
        for name, server in older._servers.items():  # one of its own kind
            if name in self._servers and self._servers[name].endpoint == server.endpoint:
                self._servers[name] = server
                older._adopted.add(name)

    def close(self) -> None:
        """End all servers that were not adopted, side by side, within about 5 s. Twice is a no-op."""
        own = [server for name, server in self._servers.items() if name not in self._adopted]
        for closing in [concurrency.spawn(server.close) for server in own]:
            closing.join()


def to_tool_name(*words: str, distinct: str = "") -> str:
    """`words` joined by two underscores, as models take it: 1 to 64 letters, digits, `_` and `-`.

    What does not fit is cut; with `distinct` the name ends with a digest of that text.
    """
    name = _NOT_IN_A_NAME.sub("_", "__".join(words))
    if not distinct:
        return name[:_MAX_NAME_CHARS] or "_"
    digest = hashlib.sha256(distinct.encode(errors="replace")).hexdigest()[:_DIGEST_CHARS]
    return f"{name[: _MAX_NAME_CHARS - _DIGEST_CHARS - 1]}_{digest}"


def _distinct_name(server: str, tool: str, taken: Collection[str]) -> str:
    whole = to_tool_name(server, tool)
    if len(f"{server}__{tool}") <= _MAX_NAME_CHARS and whole not in taken:
        return whole
    return to_tool_name(server, tool, distinct=f"{server}\0{tool}")
