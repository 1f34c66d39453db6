"""Run a command for a tool, bounded in time and output, that never outlives its caller.

Each command runs under a supervisor process; `supervisor.py` documents the guarantees. An exception in the wait, or
the end of this process, ends the command and everything it started.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import IO, Literal

import orjson

from service.core.concurrency import Event, sleep
from service.core.dataclass import record
from service.core.disconnect import watch_disconnect
from service.core.processes.process_tree import descendants_of
from service.core.processes.reaper import adopt_orphans, kill_each, program
from service.core.processes.sandbox import ResourceLimits, Sandbox
from service.core.processes.strays import end_strays

logger = logging.getLogger("openclaw.tools")

_SUPERVISOR = "service.core.processes.supervisor"
_STOP_SECONDS = 2.0  # a supervisor takes half a second; on a machine with too much to do, more
_REAP_SECONDS = 1.0
_OVERTIME_SECONDS = 3.0  # for the supervisor, which enforces the timeout: to start, end the command and report
_KILL_SECONDS, _KILL_AGAIN_SECONDS = 1.0, 0.01
_REPORT_BYTES = 4096  # in addition to the streams, whose characters take at most six bytes each
_MAX_ORDER_BYTES = 120 * 1024  # Linux allows 128 KiB in one argument


class CommandError(Exception):
    """A command that could not be run; the text is shown to people."""


@record
class Command:
    """A command: `argv` in directory `cwd` with exactly the environment `env`, reading `stdin`.

    It is ended after `timeout_seconds`, or when both streams together exceed `max_output_bytes`. Of each stream
    `kept_bytes` are kept, half of them from its beginning and half from its end.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(repr=False)
    timeout_seconds: float
    kept_bytes: int = 32 * 1024
    max_output_bytes: int = 256 * 1024 * 1024
    stdin: bytes = field(default=b"", repr=False)
    limits: ResourceLimits | None = None
    sandbox: Sandbox | None = None


@record
class Output:
    """An output stream: its beginning and, if `cut_bytes` are missing in between, its end."""

    head: str
    tail: str
    cut_bytes: int


@record
class Outcome:
    """The result of a command.

    `status` is the exit status, negative for the signal that ended it; `cause` is the reason it was ended, `None` when
    it ended by itself; `left_running` counts the processes it left behind, which were ended.
    """

    status: int
    cause: Literal["timeout", "output", "stopped", "processes", "memory"] | None
    left_running: int
    seconds: float
    stdout: Output
    stderr: Output


def run_command(command: Command) -> Outcome:
    """Run `command` until it and everything it started has ended.

    Raises `CommandError` when it cannot be started or its supervisor was killed. An exception raised into the wait
    ends the command, with SIGTERM and 0.4 s later SIGKILL, and propagates when nothing of it is left.
    """
    order = _to_order(command)
    with _to_file(command.stdin) as stdin, tempfile.TemporaryFile() as report:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                process = _start(stdin, report, theirs)
            except OSError as error:
                raise CommandError(f"no process can be started: {error.strerror}") from error
            theirs.close()
            try:
                with suppress(BrokenPipeError, ConnectionResetError):  # it has ended already; the report says why
                    ours.sendall(order)
                _wait_for_hangup(ours, command.timeout_seconds + _OVERTIME_SECONDS)
            finally:
                _end(process, ours)
        report.seek(0)
        return _parse_report(report.read(12 * command.kept_bytes + _REPORT_BYTES))


def _to_order(command: Command) -> bytes:
    if any("\0" in word for word in (*command.argv, *command.env, *command.env.values())):
        raise CommandError("a command and its environment cannot hold the character NUL")
    order = {
        "argv": command.argv,
        "cwd": command.cwd,
        "env": dict(command.env),
        "timeout_seconds": command.timeout_seconds,
        "kept_bytes": command.kept_bytes,
        "max_output_bytes": command.max_output_bytes,
        "limits": command.limits and tuple(command.limits),
        "sandbox": command.sandbox and tuple(command.sandbox),
    }
    try:
        line = orjson.dumps(order) + b"\n"
    except orjson.JSONEncodeError as error:
        raise CommandError("a command and its environment must be valid Unicode text") from error
    if len(line) > _MAX_ORDER_BYTES:
        raise CommandError(
            f"the command is longer than {_MAX_ORDER_BYTES} bytes; write a script to a file and run that"
        )
    return line


def _to_file(data: bytes) -> IO[bytes]:
    if not data:
        return Path("/dev/null").open("rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.seek(0)
    return file


def _start(stdin: IO[bytes], report: IO[bytes], lifeline: socket.socket) -> subprocess.Popen[bytes]:
    adopt_orphans()  # those of a command that kills its guard and its supervisor
    return subprocess.Popen(
        program(_SUPERVISOR, str(lifeline.fileno())),
        stdin=stdin,
        stdout=report,
        cwd="/",
        env={},
        pass_fds=(lifeline.fileno(),),
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes], lifeline: socket.socket) -> None:
    with suppress(OSError):
        lifeline.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        process.send_signal(signal.SIGCONT)  # the command may have stopped it
    if not _wait_for_hangup(lifeline, _STOP_SECONDS):
        _kill_all(process)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_SECONDS)
    if process.returncode != 0 and not end_strays(_KILL_SECONDS, sleep):
        logger.warning("processes that a command left (supervisor %d) could not be ended in time", process.pid)


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill what the supervisor did not end; its guard last, because orphans are reparented to it."""
    give_up_at = time.monotonic() + _KILL_SECONDS
    while (left := descendants_of(process.pid, with_dead=False)) and time.monotonic() < give_up_at:
        kill_each(left, signal.SIGKILL)
        sleep(_KILL_AGAIN_SECONDS)
    if left:
        # The guard keeps killing; ending it would release the processes below it.
        logger.warning("a command's processes (supervisor %d) could not be ended in time", process.pid)
    else:
        process.kill()


def _wait_for_hangup(connection: socket.socket, seconds: float | None = None) -> bool:
    gone = Event()
    with watch_disconnect(connection, gone.set):
        return bool(gone.wait(seconds))


def _parse_report(data: bytes) -> Outcome:
    if not data:
        raise CommandError("its supervisor was killed before it could report")
    try:
        report = orjson.loads(data)
        if "problem" in report:
            raise CommandError(report["problem"])
        return Outcome(
            status=report["status"],
            cause=report["cause"],
            left_running=report["left_running"],
            seconds=report["seconds"],
            stdout=Output(**report["stdout"]),
            stderr=Output(**report["stderr"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise CommandError("its supervisor's report cannot be read; the command has ended") from error
