"""One child process connected to an MCP server: requests and responses until it ends.

No caller waits longer than its timeout, and all waiting callers get an error when the process ends.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import service
from service import __version__
from service.core import concurrency
from service.core.processes.child import ChildProcess
from service.tools.tool import ToolError

logger = logging.getLogger("openclaw.tools")

_CHILD = ("-P", "-m", "service.tools.mcp.child")
_BLOCK_BYTES = 64 * 1024
_EXIT_SECONDS = 1.5
_MAX_RESPONSE_BYTES = 16 * 1024 * 1024
_WATCH_SECONDS = 1.0


class ConnectionLostError(Exception):
    """The connection ended before the response; the message has the cause."""


class SessionLostError(ConnectionLostError):
    """The server had forgotten the session and did not process the request, which may be repeated in a new one."""


@dataclass(slots=True, eq=False)
class _Request:
    """A pending request; `response` is available once `settled` is set."""

    settled: concurrency.Event = field(default_factory=concurrency.Event)
    response: dict[str, Any] | None = None


class McpConnection:
    """A child process with the connection to one MCP server, started once by the constructor.

    `settings` has the server's command or URL. Standard error of child and server goes to `log_path`, limited to about
    1 MiB (a temporary file by default). The process is stopped after `idle_stop_seconds` without a request.
    `session_lost` is set when an HTTP server has forgotten the session. `on_tools_changed` is called on the server's
    notification, `on_end` once with the cause, empty if intended.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        log_path: Path | None,
        *,
        idle_stop_seconds: float,
        on_tools_changed: Callable[[], None],
        on_end: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ended = False
        self.responses = 0
        self.session_lost = False
        self._log_path = log_path
        self._idle_stop_seconds = idle_stop_seconds
        self._on_tools_changed = on_tools_changed
        self._on_end = on_end
        self._clock = clock
        self._ids = count(1)
        self._pending: dict[int, _Request] = {}
        self._outbox: deque[bytes] = deque()
        self._writing = False
        self._last_used = clock()
        self._process: ChildProcess | None = None
        self._stopping = False
        self._lost = False
        self._reason = "it ended unexpectedly"
        self._gone = concurrency.Event()
        self._send(_to_line({**settings, "version": __version__}))
        # In the background, because the caller may leave while others still wait.
        concurrency.spawn(self._run)

    def request(self, request: Mapping[str, Any], timeout_seconds: float) -> Any:
        """Send a request (`method` and its parameters) and return its result.

        Raises `ToolError` with the server's message, `TimeoutError`, or `ConnectionLostError`. A timeout or another
        exception while waiting cancels the request.
        """
        number = next(self._ids)
        try:
            line = _to_line({"id": number, **request})
        except RecursionError:
            raise ToolError("The arguments are nested too deeply.") from None
        pending = self._pending[number] = _Request()
        self._send(line)
        try:
            self._await(pending, timeout_seconds)
        except BaseException:
            self._send(_to_line({"id": number, "method": "cancel"}))
            raise
        finally:
            del self._pending[number]
            self._last_used = self._clock()
        if pending.response is None:
            raise ConnectionLostError(self._reason)
        if "failed" in pending.response:
            lost = SessionLostError if pending.response.get("session_lost") else ConnectionLostError
            raise lost(pending.response["failed"])
        if "error" in pending.response:
            raise ToolError(pending.response["error"])
        return pending.response["result"]

    @property
    def is_closing(self) -> bool:
        """True once it accepts no more requests: it has ended or is about to."""
        return self.ended or self._stopping or self._lost

    @property
    def last_output(self) -> str:
        """The end of the standard error of child and server."""
        return "" if self._process is None else self._process.last_output

    @property
    def is_idle(self) -> bool:
        """True if no request is pending."""
        return not self._pending

    def stop(self, reason: str = "") -> None:
        """Stop child and server and wait for their end, about 5 s at most. A `reason` makes it a failure."""
        if not self._stopping:
            self._stopping = True
            self._reason = reason
            if self._process is not None:
                self._process.stop()
        self._gone.wait()

    def abandon(self, reason: str) -> None:
        """Accept no more requests, and stop as failed in the background."""
        self._lost = True
        concurrency.spawn(self.stop, reason)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until child and server have ended; return whether they did in time."""
        return bool(self._gone.wait(seconds))

    def _await(self, pending: _Request, timeout_seconds: float) -> None:
        if self.ended:
            raise ConnectionLostError(self._reason)
        if not pending.settled.wait(timeout_seconds):
            raise TimeoutError

    def _run(self) -> None:
        try:
            self._run_process()
        except Exception as error:  # any failure must reach the waiting callers
            logger.exception("The connection to an MCP server failed")
            self._reason = self._reason or type(error).__name__
        finally:
            self.ended = True
            self._on_end(self._reason)
            for pending in self._pending.values():
                pending.settled.set()
            self._gone.set()

    def _run_process(self) -> None:
        read_end, write_end = os.pipe()
        try:
            try:
                environment = {**os.environ, "PYTHONPATH": _search_path(os.environ)}
                process = ChildProcess([sys.executable, *_CHILD], None, environment, self._log_path, stdout=write_end)
            finally:
                os.close(write_end)
            self._process = process
            if self._stopping:
                process.stop()
            self._flush()
            concurrency.spawn(self._watch, process)
            self._read(read_end)
            process.stop()
        finally:
            os.close(read_end)

    def _read(self, descriptor: int) -> None:
        reader = concurrency.WorkerThread()  # a thread, because a greenlet cannot wait for a pipe
        line = bytearray()
        try:
            while block := reader.run(os.read, descriptor, _BLOCK_BYTES):
                *ends, rest = block.split(b"\n")
                for end in ends:
                    self._handle_line(bytes(line + end))
                    line.clear()
                line += rest
                if len(line) > _MAX_RESPONSE_BYTES:
                    self._reason = f"it sent a response of more than {_MAX_RESPONSE_BYTES // 1024**2} MiB"
                    return
        finally:
            self._lost = True
            reader.close()

    def _handle_line(self, line: bytes) -> None:
        message = json.loads(line)
        if "failed" in message:
            self._lost = True
            self._reason = self._reason and message["failed"]  # empty: the stop was intended
            concurrency.spawn(self._stop_if_stuck)
        if "event" in message:
            self._on_tools_changed()
        if "id" in message:
            self.responses += 1
            self.session_lost = self.session_lost or ("failed" in message and bool(message.get("session_lost")))
            pending = self._pending.get(message["id"])
            if pending is not None:
                pending.response = message
                pending.settled.set()

    def _stop_if_stuck(self) -> None:
        """Stop a child that has failed and does not exit."""
        if not self._gone.wait(_EXIT_SECONDS) and self._process is not None:
            self._process.stop()

    def _send(self, line: bytes) -> None:
        self._outbox.append(line)
        self._flush()

    def _flush(self) -> None:
        if self._process is not None and not self._writing:
            self._writing = True
            # In the background, because a child that does not read must not block the caller.
            concurrency.spawn(self._write, self._process)

    def _write(self, process: ChildProcess) -> None:
        with suppress(OSError):  # the reader reports the end
            while self._outbox:
                process.send(self._outbox.popleft())
        self._writing = False

    def _watch(self, process: ChildProcess) -> None:
        """Trim the log and stop an idle child, while it runs."""
        while process.is_running():
            self._gone.wait(min(_WATCH_SECONDS, self._idle_stop_seconds / 4))
            process.trim_log()
            if self.is_idle and self._clock() - self._last_used >= self._idle_stop_seconds:
                self.stop()


def _to_line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _search_path(environ: Mapping[str, str]) -> str:
    """Return the `PYTHONPATH` with which a child finds this package."""
    own = Path(service.__file__).parent.parent
    # Do not add site-packages: a package there may shadow a module of the standard library.
    found = "" if own.name == "site-packages" else str(own)
    return os.pathsep.join(filter(None, (found, environ.get("PYTHONPATH"))))
