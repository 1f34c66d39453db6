"""An MCP server as the gateway sees it: connected when first needed, again after a failure, let go when idle.

A server that hangs, crashes or talks nonsense costs the calls that meet it, never more; one that ends between calls
costs none. The next call finds it gone and starts it again: at once the first time, later after a while that grows
with each further failure. No call is sent twice.
"""

from __future__ import annotations

import fnmatch
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.core import concurrency
from service.core.dataclass import record
from service.tools.mcp.connection import ConnectionLostError, McpConnection
from service.tools.mcp.results import redactor
from service.tools.terminal_text import to_plain_text
from service.tools.tool import ToolError

logger = logging.getLogger(__name__)

_LAST_LINES = 5
_MAX_LINE_CHARS = 300

IDLE_STOP_SECONDS = 900.0
#: How long a listing is believed, should the server not tell that it changed.
LISTING_SECONDS = 60.0
MAX_BACKOFF_SECONDS = 30.0
#: How long a run waits for a listing, which may go on: it then does without that server's tools.
LISTING_WAIT_SECONDS = 5.0


@record
class McpEndpoint:
    """Where an MCP server is: a `command` that speaks on its standard streams, or the `url` of a streamable HTTP one.

    `env` is added to the few harmless variables a server gets of the gateway's environment. Of its tools those are
    offered whose names match a pattern of `allow` (`None`: all) and none of `deny`. `timeout_seconds` bounds one call.
    """

    name: str
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 60.0
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()

    def to_order(self) -> dict[str, Any]:
        """What the child process has to know, secrets included."""
        order = {"command": self.command, "args": list(self.args), "env": dict(self.env), "cwd": self.cwd}
        return {**order, "url": self.url, "headers": dict(self.headers)}

    def offers(self, tool_name: str) -> bool:
        """Whether the configuration lets this tool through; deny wins."""
        if any(fnmatch.fnmatchcase(tool_name, pattern) for pattern in self.deny):
            return False
        return self.allow is None or any(fnmatch.fnmatchcase(tool_name, pattern) for pattern in self.allow)


@record
class RemoteTool:
    """A tool as its server describes it; `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    read_only: bool


@dataclass(slots=True, eq=False)
class _Listing:
    """A listing under way, for all who wait for it."""

    began: float
    settled: concurrency.Event = field(default_factory=concurrency.Event)
    error: ToolError | None = None


class McpServer:
    """One configured server. Its child's log goes to `log_path`; see `McpConnection`."""

    def __init__(
        self,
        endpoint: McpEndpoint,
        log_path: Path | None = None,
        *,
        idle_stop_seconds: float = IDLE_STOP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self._log_path = log_path
        self._idle_stop_seconds = idle_stop_seconds
        self._clock = clock
        self._connection: McpConnection | None = None
        self._connected_at = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._why = ""
        self._listing: tuple[RemoteTool, ...] = ()
        self._listed_until = 0.0
        self._under_way: _Listing | None = None
        self._closed = False

    def list_tools(self, wait_seconds: float | None = None) -> tuple[RemoteTool, ...]:
        """What it offers now, at most `LISTING_SECONDS` old; of a server that fails, what it offered last.

        All who ask share one listing and wait for it until `wait_seconds` after it began (`None`: to its end); it goes
        on when they leave. Raises `ToolError` for a server that has not offered anything yet.
        """
        if self._clock() < self._listed_until:
            return self._listing
        listing = self._under_way
        if listing is None:
            listing = self._under_way = _Listing(self._clock())
            concurrency.spawn(self._list, listing)
        left = None if wait_seconds is None else max(0.0, listing.began + wait_seconds - self._clock())
        settled = listing.settled.wait(left)
        if (settled and listing.error is None) or self._listing:
            return self._listing
        if settled and listing.error is not None:
            raise ToolError(str(listing.error)) from listing.error.__cause__
        raise ToolError(f"The MCP server {self.endpoint.name} did not tell its tools within {wait_seconds:g} s.")

    def call_tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The result of one call as text; raises `ToolError` for all that can go wrong."""
        result = str(self._ask({"method": "call_tool", "name": name, "arguments": dict(arguments)}))
        self._failures = 0
        return result

    def close(self) -> None:
        """End child and server, within about 5 s. It is not used afterwards; twice is a no-op."""
        self._closed = True
        if self._connection is not None:
            self._connection.stop()

    def _list(self, listing: _Listing) -> None:
        try:
            self._listing = tuple(self._parse_tools(self._ask({"method": "list_tools"})))
            self._listed_until = self._clock() + LISTING_SECONDS
        except ToolError as error:
            listing.error = error
        except Exception:
            # Nobody waits for this greenlet but those who are told here.
            logger.exception("The tools of the MCP server %s could not be listed", self.endpoint.name)
            listing.error = ToolError(f"The tools of the MCP server {self.endpoint.name} could not be listed.")
        finally:
            self._under_way = None
            listing.settled.set()

    def _ask(self, question: Mapping[str, Any]) -> Any:
        connection = self._connect()
        answers = connection.answers
        seconds = self.endpoint.timeout_seconds
        try:
            return connection.ask(question, seconds)
        except ConnectionLostError as error:
            raise ToolError(f"The MCP server {self.endpoint.name} failed: {str(error).rstrip('.')}.") from error
        except TimeoutError:
            if connection.answers == answers and connection.is_silent:  # nobody was answered and nobody waits
                connection.give_up(f"it did not answer within {seconds:g} s")
            raise ToolError(f"The MCP server {self.endpoint.name} did not answer within {seconds:g} s.") from None

    def _connect(self) -> McpConnection:
        if self._connection is not None and self._connection.is_over and not self._closed:
            self._wait_for_end(self._connection)
        if self._closed:
            raise ToolError("The gateway is shutting down.")
        if self._connection is None or self._connection.is_over:
            wait = self._not_before - self._clock()
            if wait > 0:
                text = f"The MCP server {self.endpoint.name} failed: {self._why}. It is tried again in {wait:.0f} s."
                raise ToolError(text)
            self._forget_listing()
            self._connected_at = self._clock()
            self._connection = McpConnection(
                self.endpoint.to_order(),
                self._log_path,
                idle_stop_seconds=self._idle_stop_seconds,
                on_tools_changed=self._forget_listing,
                on_end=self._note_end,
                clock=self._clock,
            )
        return self._connection

    def _wait_for_end(self, connection: McpConnection) -> None:
        # Until then its failure has not been counted, and a second one might meet the first one's locks.
        seconds = self.endpoint.timeout_seconds
        if not connection.wait_until_gone(seconds):
            raise ToolError(f"The MCP server {self.endpoint.name} did not end within {seconds:g} s.")

    def _forget_listing(self) -> None:
        self._listed_until = 0.0

    def _note_end(self, why: str) -> None:
        if not why or self._closed:
            return
        self._failures += 1
        self._why = why.rstrip(".")
        # One that answered may be back at once, the first time; one that did not has cost its whole time already.
        answered = self._connection is not None and self._connection.answers > 0
        base = min(1.0, self._failures - 1.0) if answered else self._clock() - self._connected_at
        self._not_before = self._clock() + min(base * 2 ** min(self._failures - 1, 10), MAX_BACKOFF_SECONDS)
        logger.warning("The MCP server %s failed: %s%s", self.endpoint.name, why, self._last_words())

    def _last_words(self) -> str:
        printed = "" if self._connection is None else self._connection.last_output
        shown = redactor(self.endpoint.to_order())(to_plain_text(printed))  # before anything is cut
        lines = [line for line in shown.splitlines() if line.strip()][-_LAST_LINES:]
        words = "".join(f"\n  {line[:_MAX_LINE_CHARS]}" for line in lines)
        return f". It printed last:{words}" if words else ""

    def _parse_tools(self, described: list[dict[str, Any]]) -> Iterator[RemoteTool]:
        for tool in described:
            if self.endpoint.offers(tool["name"]):
                yield RemoteTool(tool["name"], tool["description"], tool["parameters"], tool["read_only"])
