"""Run a command that ends, with everything it starts, as soon as the process that started it is gone.

A program with no dependencies: `python -I -S launcher.py [--report] PARENT_PID COMMAND [ARGUMENT ...]`. It stays as
the command's parent and ends the way the command does; with `--report` it writes that to standard error. On Linux,
every process the command starts, in any session or process group, is killed when the command has ended, when the
parent is gone, or on SIGUSR1: orphans are reparented to this process (PR_SET_CHILD_SUBREAPER). Other termination
signals are forwarded to the command's process group. If the launcher itself is killed, only the command dies with it.
A process of another user cannot be killed. On other systems the command just replaces this process.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_REPORT = "--report"
_CANNOT_START = 127  # as in a shell
_KILL_AGAIN_SECONDS = 0.005

_TERMINATION = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_END_ALL = signal.SIGUSR1
_WATCHED = (*_TERMINATION, _END_ALL, signal.SIGCHLD)


def tie_to_parent(parent_pid: int, number: int) -> bool:
    """Have the kernel send this process the signal `number` when its parent ends.

    Returns whether the parent was still `parent_pid` after the request.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent_pid


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status; a signal that ended it ends this process as well."""
    reports = arguments[0] == _REPORT
    parent_pid, command = int(arguments[reports]), arguments[reports + 1 :]
    if sys.platform != "linux":
        return _execute(command)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if not tie_to_parent(parent_pid, _END_ALL):
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
    status = _supervise(command_pid)
    if report is not None:
        with suppress(OSError):
            os.write(report, f"{_ending(os.waitstatus_to_exitcode(status))}\n".encode())
    return _end_like(status)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


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


def _supervise(command_pid: int) -> int:
    """Wait until no process is left and return the command's wait status."""
    status, ending = 0, False
    while True:
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == command_pid:
                    status, ending = ended[1], True
        except ChildProcessError:
            return status
        if ending:
            # Repeated, because orphans become children of this process.
            _kill_children()
        received = signal.sigtimedwait(_WATCHED, _KILL_AGAIN_SECONDS) if ending else signal.sigwaitinfo(_WATCHED)
        if received is not None and received.si_signo == _END_ALL:
            ending = True
        elif received is not None and received.si_signo in _TERMINATION:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(command_pid, received.si_signo)


def _kill_children() -> None:
    for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - pathlib is slow to import
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123 - as above
            # pid (name) state parent ...; the name may hold anything, parentheses too
            if int(stat.read().rpartition(b")")[2].split()[1]) == os.getpid():
                os.kill(int(name), signal.SIGKILL)


def _ending(exit_code: int) -> str:
    return f"It exited with status {exit_code}." if exit_code >= 0 else f"It was ended by signal {-exit_code}."


def _end_like(status: int) -> int:
    exit_code = os.waitstatus_to_exitcode(status)
    if exit_code >= 0:
        return exit_code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core dump is enough
    with suppress(OSError):  # SIGKILL has no other handler
        signal.signal(-exit_code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), -exit_code)
    return 128 - exit_code  # as in a shell


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
