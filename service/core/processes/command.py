"""Running a program for a tool: bounded in time and output, and never outliving whoever waits for it.

Each command has a supervisor, a program of its own; `supervisor.py` says what that guarantees. Leaving the wait by any
exception, or the end of this very process, ends the command and everything it has started.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import IO, Literal

import orjson

from service.core.concurrency import Event, sleep, watch_hangup
from service.core.dataclass import record
from service.core.processes.supervisor import descendants_of

logger = logging.getLogger("openclaw.tools")

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_STOP_SECONDS = 2.0  # a supervisor takes half a second; on a machine with too much to do, more
_REAP_SECONDS = 1.0
_OVERTIME_SECONDS = 3.0  # for a supervisor that keeps time itself: to start, to end the command and to tell
_KILL_SECONDS, _KILL_AGAIN_SECONDS = 1.0, 0.01
_REPORT_BYTES = 4096  # beside the streams, each character of which takes six at most
_MAX_ORDER_BYTES = 120 * 1024  # Linux takes 128 KiB in one argument


class CommandError(Exception):
    """A command that could not be run; the text is for people."""


@record
class Command:
    """What to run: `argv` in directory `cwd` with exactly the environment `env` and `stdin` to read.

    It is ended after `timeout_seconds`, or once both streams together have more than `max_output_bytes`. Of each
    stream `kept_bytes` are kept, half of them from its beginning and half from its end.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(repr=False)
    timeout_seconds: float
    kept_bytes: int = 32 * 1024
    max_output_bytes: int = 256 * 1024 * 1024
    stdin: bytes = field(default=b"", repr=False)


@record
class Output:
    """One stream: its beginning and, where `cut_bytes` are missing between them, its end."""

    head: str
    tail: str
    cut_bytes: int


@record
class Outcome:
    """How a command ended.

    `status` is its exit status, negative for the signal that ended it; `cause` is why it was ended, `None` when it
    ended by itself; `left_running` counts the processes it left, which were ended.
    """

    status: int
    cause: Literal["timeout", "output", "stopped"] | None
    left_running: int
    seconds: float
    stdout: Output
    stderr: Output


def run_command(command: Command) -> Outcome:
    """Run `command` to its end and that of everything it started.

    Raises `CommandError` when it cannot be started or its supervisor was killed. Whatever is raised into the wait ends
    the command, with SIGTERM and 0.4 s later SIGKILL, and is raised on once nothing of it is left.
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
                with suppress(BrokenPipeError, ConnectionResetError):  # it has ended already; the report tells
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
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(_SUPERVISOR), str(lifeline.fileno())],
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


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """End what a supervisor does not end; its guard goes last: as long as that is there, orphans are found below it."""
    give_up_at = time.monotonic() + _KILL_SECONDS
    while (left := descendants_of(process.pid, with_dead=False)) and time.monotonic() < give_up_at:
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        sleep(_KILL_AGAIN_SECONDS)
    if left:
        # It keeps killing; ending it would only set free what it holds.
        logger.warning("a command's processes (supervisor %d) could not be ended in time", process.pid)
    else:
        process.kill()


def _wait_for_hangup(connection: socket.socket, seconds: float | None = None) -> bool:
    gone = Event()
    with watch_hangup(connection, gone.set):
        return bool(gone.wait(seconds))


def _parse_report(data: bytes) -> Outcome:
    if not data:
        raise CommandError("its supervisor was killed; what it started may still be running")
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
