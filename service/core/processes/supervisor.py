"""Run one command as the reaper of everything it starts, and end only when none of its processes is left.

A program with no dependencies, started with the arguments of `main`. The lifeline is one end of a socket pair: it
carries the order (a line of JSON); its end-of-file, which follows the end of the client in any way, ends the command.
The report is one JSON object on standard output.

Guarantee on Linux: every process the command starts, in any session or process group and with any signals ignored, is
gone when this program ends. Orphans are reparented to this process (PR_SET_CHILD_SUBREAPER), and no program gains
privileges by being executed (PR_SET_NO_NEW_PRIVS; `sudo` does not work), so that each of them can be signalled. The
program is two processes: the supervisor, the command's parent, and the guard, the supervisor's parent. A command that
stops the supervisor gains nothing: the client continues it, and after the client's end the kernel does; the supervisor
continues a guard that was stopped. A command that kills the supervisor is killed by the kernel (PR_SET_PDEATHSIG), and
its processes are reparented to the guard, which kills them and reports. Without the guard the supervisor works on. A
command that kills both, which it can only do without a sandbox, leaves its processes to the client, which finds and
kills them (`strays.py`). What remains, without a sandbox, is to ask a running program (cron, systemd, docker) to start
something. On other systems there is no guard, and only the command's process group is ended.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from service.core.processes.confined_start import ConfinedStart
from service.core.processes.process_tree import descendants_of
from service.core.processes.reaper import (
    KILL_AGAIN_SECONDS,
    TERMINATION,
    adopt_orphans,
    forbid_new_privileges,
    kill_each,
    reap,
    set_dumpable,
    tie_to_parent,
)
from service.core.processes.strays import mark

GRACE_SECONDS = 0.4

_BLOCK_BYTES = 64 * 1024
_LONG_WAIT_SECONDS = 3600.0
_MEASURE_SECONDS = 0.25
_MAX_PIPE_BLOCKS = 32
_FORWARDED = (*TERMINATION, signal.SIGCONT)
_BLOCKED = (*_FORWARDED, signal.SIGCHLD)  # each process unblocks them when it is ready


class Capture:
    """The beginning and the end of a stream, at most half of `kept_bytes` each; the rest is only counted."""

    def __init__(self, kept_bytes: int) -> None:
        self.total_bytes = 0
        self._half = max(kept_bytes // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        """Append `data`."""
        self.total_bytes += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 4 * self._half:
            del self._tail[: -self._half]

    def to_json(self) -> dict[str, Any]:
        """Return `head`, `tail` and the `cut_bytes` between them; everything is in `head` if nothing was cut."""
        tail = self._tail[-self._half :]
        cut = self.total_bytes - len(self._head) - len(tail)
        if not cut:
            return {"head": _to_text(self._head + tail), "tail": "", "cut_bytes": 0}
        return {"head": _to_text(self._head), "tail": _to_text(tail), "cut_bytes": cut}


def _to_text(data: bytearray) -> str:
    return data.decode(errors="replace")


class Supervision:
    """One command from its start to the end of its last process."""

    def __init__(self, order: dict[str, Any], lifeline: socket.socket) -> None:
        self._started_at = time.monotonic()
        self._end_at: float = self._started_at + order["timeout_seconds"]
        self._max_output_bytes: int = order["max_output_bytes"]
        self._cause: str | None = None
        self._stop_asked = False
        self._ending = False
        self._childless = False
        self._left_running = 0
        self._kill_at = 0.0
        self._captures = (Capture(order["kept_bytes"]), Capture(order["kept_bytes"]))
        self._selector = selectors.DefaultSelector()
        self._selector.register(lifeline, selectors.EVENT_READ, lambda: self._on_hangup(lifeline))
        self._watch_signals()
        self._measure_at = 0.0
        self._start = ConfinedStart(order)
        self._command = self._start.start()
        if self._start.broker is not None:
            self._selector.register(self._start.broker, selectors.EVENT_READ, self._answer)
        for stream, capture in zip((self._command.stdout, self._command.stderr), self._captures, strict=True):
            assert stream is not None  # noqa: S101 - for the type checker: both are pipes
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, self._reader(stream.fileno(), capture))

    def run(self) -> dict[str, Any]:
        """Wait for the end of all processes and return the report."""
        while not self._childless:
            for key, _ in self._selector.select(self._patience_seconds()):
                key.data()
            self._reap()
            self._check_limits()
        self._drain()
        self._start.remove()
        return {
            "status": self._command.returncode,
            "cause": self._cause,
            "left_running": self._left_running,
            "seconds": time.monotonic() - self._started_at,
            "stdout": self._captures[0].to_json(),
            "stderr": self._captures[1].to_json(),
        }

    def _watch_signals(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._wakeup = (ours, theirs)
        signal.set_wakeup_fd(theirs.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in TERMINATION:
            signal.signal(number, self._ask_to_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        self._selector.register(ours, selectors.EVENT_READ, lambda: ours.recv(_BLOCK_BYTES))

    def _ask_to_stop(self, *_: object) -> None:
        self._stop_asked = True

    def _on_hangup(self, lifeline: socket.socket) -> None:
        self._selector.unregister(lifeline)  # end-of-file stays readable
        self._stop_asked = True

    def _answer(self) -> bool:
        broker = self._start.broker
        if broker is not None and not broker.answer():
            self._selector.unregister(broker)
        return False

    def _reader(self, descriptor: int, capture: Capture) -> Callable[[], bool]:
        """Return a function that reads the stream once: false when nothing is available or the stream has ended."""

        def read() -> bool:
            try:
                data = os.read(descriptor, _BLOCK_BYTES)
            except BlockingIOError:
                return False
            if not data:
                self._selector.unregister(descriptor)
            capture.add(data)
            return bool(data)

        return read

    def _patience_seconds(self) -> float:
        if not self._ending:
            longest = _LONG_WAIT_SECONDS if self._start.limits is None else _MEASURE_SECONDS
            return min(max(self._end_at - time.monotonic(), 0.0), longest)
        return max(self._kill_at - time.monotonic(), KILL_AGAIN_SECONDS)

    def _reap(self) -> None:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._command.pid:
                    self._command.returncode = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            self._childless = True
            return
        if self._command.returncode is not None and not self._ending:
            self._left_running = len(descendants_of(os.getpid(), with_dead=False))
            self._end(None)

    def _check_limits(self) -> None:
        now = time.monotonic()
        if self._ending:
            if now >= self._kill_at:
                # Repeated: a process that was just being forked has not been seen.
                self._signal(signal.SIGKILL)
        elif now >= self._end_at:
            self._end("timeout")
        elif self._stop_asked:
            self._end("stopped")
        elif sum(capture.total_bytes for capture in self._captures) > self._max_output_bytes:
            self._end("output")
        elif now >= self._measure_at:
            self._measure_at = now + _MEASURE_SECONDS
            if limit := self._start.exceeded():
                self._end(limit)

    def _end(self, cause: str | None) -> None:
        self._ending, self._cause = True, cause
        self._kill_at = time.monotonic() + GRACE_SECONDS
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform != "linux":
                os.killpg(self._command.pid, number)
        kill_each(descendants_of(os.getpid()), number)

    def _drain(self) -> None:
        for key in list(self._selector.get_map().values()):
            if not isinstance(key.fileobj, socket.socket):
                # A pipe holds a megabyte at most; an outside process may hold its other end and keep writing.
                any(not key.data() for _ in range(_MAX_PIPE_BLOCKS))


def main(arguments: list[str]) -> int:
    """Read the order from the descriptor that is the one argument, run it, report; return the exit status."""
    guard_pid = os.getpid()
    if sys.platform == "linux":
        forbid_new_privileges()
        set_dumpable(on=False)  # the command must not write into the report
        _adopt_orphans()
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        supervisor_pid = os.fork()
        if supervisor_pid:
            return _guard(supervisor_pid)
        _adopt_orphans()
        mark()
    status = _supervise(arguments)
    if os.getppid() == guard_pid:
        os.kill(guard_pid, signal.SIGCONT)  # the command, which has ended, may have stopped it
    return status


def _adopt_orphans() -> None:
    # Needed in each process: a fork inherits neither setting.
    adopt_orphans()
    tie_to_parent(os.getppid(), signal.SIGCONT)  # a stopped process must run to see the end of the lifeline


def _guard(supervisor_pid: int) -> int:
    """Wait for the supervisor to end; if it was killed, kill the processes it left."""
    status = reap(supervisor_pid, _FORWARDED, lambda number: kill_each([supervisor_pid], number))
    if status:
        happened = "was killed" if os.WIFSIGNALED(status) else "failed"
        problem = f"its supervisor {happened}; whatever it had started was killed, too"
        sys.stdout.write(json.dumps({"problem": problem}))
    return 0


def _supervise(arguments: list[str]) -> int:
    lifeline = socket.socket(fileno=int(arguments[0]))
    os.set_inheritable(lifeline.fileno(), False)
    lifeline.setblocking(True)  # gevent's are not, and the client may need time to send the order
    line = lifeline.makefile("rb").readline()
    if not line.endswith(b"\n"):
        return 1  # the client is gone
    order = json.loads(line)
    try:
        report = Supervision(order, lifeline).run()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        report = {"problem": f"cannot start {order['argv'][0]}: {reason}"}
    sys.stdout.write(json.dumps(report))
    return 0
