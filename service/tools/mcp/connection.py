"""One life of the program that speaks with an MCP server: questions go in, answers come out, until it ends.

Nobody waits longer than they said, whatever the server does, and everybody who waits learns of the end.
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

logger = logging.getLogger(__name__)

_CHILD = ("-P", "-m", "service.tools.mcp.child")
_BLOCK_BYTES = 64 * 1024
_LAST_WORDS_SECONDS = 1.5
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_WATCH_SECONDS = 1.0


class ConnectionLostError(Exception):
    """The connection ended before the answer came; the text says why."""


@dataclass(slots=True, eq=False)
class _Question:
    """A question under way; answered once `settled` is set."""

    settled: concurrency.Event = field(default_factory=concurrency.Event)
    answer: dict[str, Any] | None = None


class McpConnection:
    """A child process that holds the connection to one MCP server, started at once and never started again.

    `order` says how to reach the server. What child and server print to standard error goes to `log_path`, cut at
    about 1 MiB (a temporary file by default). It is stopped after `idle_stop_seconds` without a question.
    `on_tools_changed` is called when the server says so, `on_end` once with why, an empty text if that was wanted.
    """

    def __init__(
        self,
        order: Mapping[str, Any],
        log_path: Path | None,
        *,
        idle_stop_seconds: float,
        on_tools_changed: Callable[[], None],
        on_end: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ended = False
        self.answers = 0
        self._log_path = log_path
        self._idle_stop_seconds = idle_stop_seconds
        self._on_tools_changed = on_tools_changed
        self._on_end = on_end
        self._clock = clock
        self._ids = count(1)
        self._questions: dict[int, _Question] = {}
        self._outbox: deque[bytes] = deque()
        self._writing = False
        self._last_used = clock()
        self._process: ChildProcess | None = None
        self._stopping = False
        self._lost = False
        self._reason = "it ended unexpectedly"
        self._gone = concurrency.Event()
        self._send({**order, "version": __version__})
        # Beside the caller, who may leave while others still wait.
        concurrency.spawn(self._run)

    def ask(self, question: Mapping[str, Any], timeout_seconds: float) -> Any:
        """The answer to `question` (`method` and what belongs to it).

        Raises `ToolError` with the server's own words, `TimeoutError`, or `ConnectionLostError`. One who leaves
        before the answer, by the time limit or an exception, takes the question back.
        """
        number = next(self._ids)
        asked = self._questions[number] = _Question()
        self._send({"id": number, **question})
        try:
            self._await(asked, timeout_seconds)
        except BaseException:
            self._send({"id": number, "method": "cancel"})
            raise
        finally:
            del self._questions[number]
            self._last_used = self._clock()
        if asked.answer is None:
            raise ConnectionLostError(self._reason)
        if "failed" in asked.answer:
            raise ConnectionLostError(asked.answer["failed"])
        if "error" in asked.answer:
            raise ToolError(asked.answer["error"])
        return asked.answer["result"]

    @property
    def is_over(self) -> bool:
        """Whether it takes no further questions: it has ended or is about to."""
        return self.ended or self._stopping or self._lost

    @property
    def last_output(self) -> str:
        """What child and server printed to standard error last."""
        return "" if self._process is None else self._process.last_output

    @property
    def is_silent(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._questions

    def stop(self, reason: str = "") -> None:
        """End it, and wait until child and server are gone, at most about 5 s. With a `reason` it counts as failed."""
        if not self._stopping:
            self._stopping = True
            self._reason = reason
            if self._process is not None:
                self._process.stop()
        self._gone.wait()

    def give_up(self, reason: str) -> None:
        """Take no further questions, and end as failed without holding up the caller."""
        self._lost = True
        concurrency.spawn(self.stop, reason)

    def wait_until_gone(self, seconds: float) -> bool:
        """Wait until one that is over has ended, with child and server; returns whether it has, in that time."""
        return bool(self._gone.wait(seconds))

    def _await(self, asked: _Question, timeout_seconds: float) -> None:
        if self.ended:
            raise ConnectionLostError(self._reason)
        if not asked.settled.wait(timeout_seconds):
            raise TimeoutError

    def _run(self) -> None:
        try:
            self._live()
        except Exception as error:  # whatever it was, those who wait have to be told
            logger.exception("The connection to an MCP server failed")
            self._reason = self._reason or type(error).__name__
        finally:
            self.ended = True
            self._on_end(self._reason)
            for question in self._questions.values():
                question.settled.set()
            self._gone.set()

    def _live(self) -> None:
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
        reader = concurrency.WorkerThread()  # a thread, since a pipe's end cannot be waited for in a greenlet
        line = bytearray()
        try:
            while block := reader.run(os.read, descriptor, _BLOCK_BYTES):
                *ends, rest = block.split(b"\n")
                for end in ends:
                    self._take(bytes(line + end))
                    line.clear()
                line += rest
                if len(line) > _MAX_ANSWER_BYTES:
                    self._reason = f"it sent an answer of more than {_MAX_ANSWER_BYTES // 1024**2} MiB"
                    return
        finally:
            self._lost = True
            reader.close()

    def _take(self, line: bytes) -> None:
        message = json.loads(line)
        if "failed" in message:
            self._lost = True
            self._reason = self._reason and message["failed"]  # empty: the end was wanted
            concurrency.spawn(self._hasten)
        if "event" in message:
            self._on_tools_changed()
        if "id" in message:
            self.answers += 1
            question = self._questions.get(message["id"])
            if question is not None:
                question.answer = message
                question.settled.set()

    def _hasten(self) -> None:
        """End a child that has failed and does not end by itself."""
        if not self._gone.wait(_LAST_WORDS_SECONDS) and self._process is not None:
            self._process.stop()

    def _send(self, message: Mapping[str, Any]) -> None:
        self._outbox.append(json.dumps(message).encode() + b"\n")
        self._flush()

    def _flush(self) -> None:
        if self._process is not None and not self._writing:
            self._writing = True
            # Beside the caller, since a child that does not read must not hold anybody up.
            concurrency.spawn(self._write, self._process)

    def _write(self, process: ChildProcess) -> None:
        with suppress(OSError):  # the reader sees the end, too
            while self._outbox:
                process.send(self._outbox.popleft())
        self._writing = False

    def _watch(self, process: ChildProcess) -> None:
        """Keep the log short and end what nobody needs, for as long as the child runs."""
        while process.is_running():
            self._gone.wait(min(_WATCH_SECONDS, self._idle_stop_seconds / 4))
            process.trim_log()
            if self.is_silent and self._clock() - self._last_used >= self._idle_stop_seconds:
                self.stop()


def _search_path(environ: Mapping[str, str]) -> str:
    """Where a child finds this package beside what it finds anyway, such as what is installed."""
    own = Path(service.__file__).parent.parent
    # Among what is installed something may be called like a part of Python, which would then be found first.
    found = "" if own.name == "site-packages" else str(own)
    return os.pathsep.join(filter(None, (found, environ.get("PYTHONPATH"))))
