"""Run a command that ends, with everything it starts, as soon as the process that started it is gone.

A program with the arguments `[--report] PARENT_PID COMMAND [ARGUMENT ...]` that needs only the standard library. It is
for long-running commands, whose streams belong to them; `supervisor.py` is for those that are limited and captured. It
stays as the command's parent and ends the way the command does; with `--report` it writes that to standard error. On
Linux, every process the command starts, in any session or process group, is killed when the command has ended, when the
parent is gone, or on SIGUSR1: orphans are reparented to this process. Other termination signals are forwarded to the
command's process group. If the launcher itself is killed, only the command dies with it. A process of another user
cannot be killed. On other systems the command just replaces this process.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from service.core.processes.reaper import TERMINATION, adopt_orphans, program, reap, tie_to_parent

#: Makes the launcher kill all processes below it. Elsewhere than on Linux the launcher has become the command itself.
END_ALL = signal.SIGUSR1 if sys.platform == "linux" else signal.SIGKILL

_REPORT = "--report"
_CANNOT_START = 127  # as in a shell
_WATCHED = (*TERMINATION, END_ALL, signal.SIGCHLD)


def launched(command: Sequence[str], *, report: bool = False) -> list[str]:
    """Return the command line that runs `command`, whose first word is a path, until this process ends."""
    return program(__name__, *([_REPORT] if report else ()), str(os.getpid()), *command)


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status; a signal that ended it ends this process as well."""
    reports = arguments[0] == _REPORT
    parent_pid, command = int(arguments[reports]), arguments[reports + 1 :]
    if sys.platform != "linux":
        return _execute(command)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    adopt_orphans()
    if not tie_to_parent(parent_pid, END_ALL):
        return 1
    own_pid = os.getpid()
    command_pid = os.fork()
    if command_pid == 0:
        try:
            os.setsid()
            if tie_to_parent(own_pid, signal.SIGKILL):
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                _execute(command)
        finally:
            os._exit(_CANNOT_START)
    report = os.dup(2) if reports else None
    _release_streams()
    status = reap(command_pid, TERMINATION, lambda number: _signal_group(command_pid, number), END_ALL)
    if report is not None:
        with suppress(OSError):
            os.write(report, f"{_ending(os.waitstatus_to_exitcode(status))}\n".encode())
    return _end_like(status)


def _execute(command: list[str]) -> int:
    """Become the command; returns only if that fails."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would inherit that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(command[0], command)  # noqa: S606 - deliberately without a shell
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        sys.stderr.flush()
    return _CANNOT_START


def _release_streams() -> None:
    # The streams are the command's: their readers must see when it closes them.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


def _signal_group(command_pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(command_pid, number)


def _ending(exit_code: int) -> str:
    return f"It exited with status {exit_code}." if exit_code >= 0 else f"It was ended by signal {-exit_code}."


def _end_like(status: int) -> int:
    exit_code = os.waitstatus_to_exitcode(status)
    if exit_code >= 0:
        return exit_code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core dump is enough
    for number in _WATCHED:
        signal.signal(number, signal.SIG_IGN)  # discards repeated ones, which would end this process otherwise
    with suppress(OSError):  # SIGKILL has no other handler
        signal.signal(-exit_code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), -exit_code)
    return 128 - exit_code  # as in a shell
