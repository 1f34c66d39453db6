"""An MCP server: connected on first use, reconnected after a failure, stopped when idle.

A server that hangs, crashes or sends invalid data fails only the calls in progress; one that ends between calls fails
none. The next call starts it again: immediately after the first failure, then with increasing delay. No call is sent
twice, except in a new session when the server had forgotten the old one and did not process it. While a server is
down it is reconnected in the background, and no run waits for it.
"""

from __future__ import annotations

import fnmatch
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from service.core import concurrency
from service.core.dataclass import record
from service.core.work_context import current_work
from service.tools.mcp.connection import ConnectionLostError, McpConnection, SessionLostError
from service.tools.mcp.results import redactor
from service.tools.mcp.sandbox import McpSandbox
from service.tools.terminal_text import to_plain_text
from service.tools.tool import ToolError

logger = logging.getLogger("openclaw.tools")

_LAST_LINES = 5
_MAX_LINE_CHARS = 300
_RETRY_SECONDS = 1.0

IDLE_STOP_SECONDS = 900.0
#: The maximum age of a listing; servers may notify changes earlier.
LISTING_SECONDS = 60.0
MAX_BACKOFF_SECONDS = 30.0
#: The time a run waits for a listing. Afterwards it starts without that server's tools while the listing continues.
LISTING_WAIT_SECONDS = 5.0


@record
class McpEndpoint:
    """The settings of an MCP server: a `command` (stdio) or a `url` (streamable HTTP).

    `env` is added to the few harmless variables of the gateway's environment that a server gets. Its tools are offered
    if their names match a pattern in `allow` (`None`: all) and none in `deny`. `timeout_seconds` limits one call.
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
    sandbox: McpSandbox | None = None

    def to_child_settings(self) -> dict[str, Any]:
        """Return the settings for the child process, secrets included."""
        stdio = {"command": self.command, "args": list(self.args), "env": dict(self.env), "cwd": self.cwd}
        return {**stdio, "url": self.url, "headers": dict(self.headers), "sandbox": self.sandbox}

    def offers(self, tool_name: str) -> bool:
        """Return whether the configuration allows this tool; deny wins."""
        if any(fnmatch.fnmatchcase(tool_name, pattern) for pattern in self.deny):
            return False
        return self.allow is None or any(fnmatch.fnmatchcase(tool_name, pattern) for pattern in self.allow)


@record
class RemoteTool:
    """A tool as listed by its server; `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    read_only: bool


@dataclass(slots=True, eq=False)
class _Listing:
    """A listing in progress, shared by its waiting callers."""

    started_at: float
    settled: concurrency.Event = field(default_factory=concurrency.Event)
    error: ToolError | None = None


class McpServer:
    """One configured server. Its child process logs to `log_path`; see `McpConnection`."""

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
        self._last_error = ""
        self._listing: tuple[RemoteTool, ...] = ()
        self._listed_until = 0.0
        self._current_listing: _Listing | None = None
        self._recovering = False
        self._closed = concurrency.Event()

    @property
    def state(self) -> Literal["idle", "connecting", "connected", "failed"]:
        """The state for operators.

        "connecting" before its first response, "failed" while it is reconnected in the background, "idle" if it is not
        running.
        """
        if self._recovering:
            return "failed"
        if self._connection is None or self._connection.is_closing:
            return "idle"
        return "connected" if self._connection.responses else "connecting"

    @property
    def is_listed(self) -> bool:
        """True if `list_tools` returns at once what the server has listed lately."""
        return self._clock() < self._listed_until

    def list_tools(self, wait_seconds: float | None = None) -> tuple[RemoteTool, ...]:
        """Return its tools, at most `LISTING_SECONDS` old, or the last known ones if the server fails.

        Concurrent callers share one listing and wait for it until `wait_seconds` after its start (`None`: to its end);
        it continues in the background. With `wait_seconds` nobody waits for a server that is down. Raises `ToolError`
        if the server fails and has never listed tools.
        """
        if self.is_listed:
            return self._listing
        if self._recovering and wait_seconds is not None:
            if self._listing:
                return self._listing
            cause = f"The MCP server {self.endpoint.name} failed: {self._last_error}."
            raise ToolError(f"{cause} It is reconnected in the background.")
        listing = self._current_listing
        if listing is None:
            listing = self._current_listing = _Listing(self._clock())
            concurrency.spawn(self._list, listing)
        left = None if wait_seconds is None else max(0.0, listing.started_at + wait_seconds - self._clock())
        settled = listing.settled.wait(left)
        if (settled and listing.error is None) or self._listing:
            return self._listing
        if settled and listing.error is not None:
            raise ToolError(str(listing.error)) from listing.error.__cause__
        raise ToolError(f"The MCP server {self.endpoint.name} did not list its tools within {wait_seconds:g} s.")

    def call_tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool and return its result as text. Raises `ToolError` for every failure."""
        request = {"method": "call_tool", "name": name, "arguments": dict(arguments)}
        if trace := current_work.get().trace_headers:
            request["trace"] = dict(trace)
        result = str(self._request(request))
        self._failures = 0
        self._recovering = False
        return result

    def close(self) -> None:
        """Stop child and server for good, within about 5 s. Idempotent."""
        self._closed.set()
        if self._connection is not None:
            self._connection.stop()

    def _list(self, listing: _Listing) -> None:
        try:
            found = tuple(self._parse_tools(self._request({"method": "list_tools"})))
            if not _is_equal(found, self._listing):  # else what was made of it can be used again
                self._listing = found
            self._listed_until = self._clock() + LISTING_SECONDS
            self._recovering = False
        except ToolError as error:
            listing.error = error
            self._begin_recovery(error)
        except Exception:
            # Report to the waiting callers; nothing else observes this greenlet.
            logger.exception("The tools of the MCP server %s could not be listed", self.endpoint.name)
            listing.error = ToolError(f"The tools of the MCP server {self.endpoint.name} could not be listed.")
        finally:
            self._current_listing = None
            listing.settled.set()

    def _begin_recovery(self, error: ToolError) -> None:
        self._last_error = self._last_error or str(error).rstrip(".")
        if not self._recovering and not self._closed.is_set():
            self._recovering = True
            concurrency.spawn(self._recover)

    def _recover(self) -> None:
        """Try to list the tools with increasing delay until the server responds."""
        while self._recovering:
            if self._closed.wait(max(_RETRY_SECONDS, self._not_before - self._clock())):
                return
            if self._current_listing is None:
                listing = self._current_listing = _Listing(self._clock())
                self._list(listing)

    def _request(self, request: Mapping[str, Any]) -> Any:
        try:
            return self._request_once(request)
        except SessionLostError:
            logger.info("The MCP server %s has forgotten the session; the request is repeated", self.endpoint.name)
        try:
            return self._request_once(request)
        except SessionLostError as error:
            raise self._to_error(error) from error

    def _to_error(self, error: ConnectionLostError) -> ToolError:
        return ToolError(f"The MCP server {self.endpoint.name} failed: {str(error).rstrip('.')}.")

    def _request_once(self, request: Mapping[str, Any]) -> Any:
        connection = self._connect()
        responses = connection.responses
        seconds = self.endpoint.timeout_seconds
        try:
            return connection.request(request, seconds)
        except SessionLostError:
            raise
        except ConnectionLostError as error:
            raise self._to_error(error) from error
        except TimeoutError:
            if connection.responses == responses and connection.is_idle:  # no response to any caller
                connection.abandon(f"it did not answer within {seconds:g} s")
            raise ToolError(f"The MCP server {self.endpoint.name} did not answer within {seconds:g} s.") from None

    def _connect(self) -> McpConnection:
        if self._connection is not None and self._connection.is_closing and not self._closed.is_set():
            self._wait_for_end(self._connection)
        if self._closed.is_set():
            raise ToolError("The gateway is shutting down.")
        if self._connection is None or self._connection.is_closing:
            wait = self._not_before - self._clock()
            if wait > 0:
                cause = f"The MCP server {self.endpoint.name} failed: {self._last_error}."
                raise ToolError(f"{cause} The next attempt is in {wait:.0f} s.")
            self._forget_listing()
            self._connected_at = self._clock()
            self._connection = McpConnection(
                self.endpoint.to_child_settings(),
                self._log_path,
                idle_stop_seconds=self._idle_stop_seconds,
                on_tools_changed=self._forget_listing,
                on_end=self._handle_end,
                clock=self._clock,
            )
        return self._connection

    def _wait_for_end(self, connection: McpConnection) -> None:
        # Its failure is counted only then, and a second process could run into the locks of the first.
        seconds = self.endpoint.timeout_seconds
        if not connection.wait_for_end(seconds):
            raise ToolError(f"The MCP server {self.endpoint.name} did not end within {seconds:g} s.")

    def _forget_listing(self) -> None:
        self._listed_until = 0.0

    def _handle_end(self, reason: str) -> None:
        if not reason or self._closed.is_set():
            return
        if self._connection is not None and self._connection.session_lost:
            return  # not a failure: the request is repeated in a new session
        self._failures += 1
        self._last_error = reason.rstrip(".")
        # Retry immediately after the first failure if it had responded; otherwise wait as long as the attempt took.
        responded = self._connection is not None and self._connection.responses > 0
        base = min(1.0, self._failures - 1.0) if responded else self._clock() - self._connected_at
        self._not_before = self._clock() + min(base * 2 ** min(self._failures - 1, 10), MAX_BACKOFF_SECONDS)
        logger.warning("The MCP server %s failed: %s%s", self.endpoint.name, reason, self._last_output_text())

    def _last_output_text(self) -> str:
        printed = "" if self._connection is None else self._connection.last_output
        shown = redactor(self.endpoint.to_child_settings())(to_plain_text(printed))  # redact before truncating
        lines = [line for line in shown.splitlines() if line.strip()][-_LAST_LINES:]
        output = "".join(f"\n  {line[:_MAX_LINE_CHARS]}" for line in lines)
        return f". Its last output:{output}" if output else ""

    def _parse_tools(self, described: list[dict[str, Any]]) -> Iterator[RemoteTool]:
        for tool in described:
            if self.endpoint.offers(tool["name"]):
                yield RemoteTool(tool["name"], tool["description"], tool["parameters"], tool["read_only"])


def _is_equal(found: tuple[RemoteTool, ...], known: tuple[RemoteTool, ...]) -> bool:
    try:
        return found == known
    except RecursionError:  # a schema nested too deeply
        return False
