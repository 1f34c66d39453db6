"""Run a command that ends, with everything it starts, as soon as the process that asked for it is gone.

Run as a program, `python -I -S launcher.py [--tell] PARENT_PID COMMAND [ARGUMENT ...]`, with nothing but the
standard library. It stays as the command's parent and ends as the command does; with `--tell` it says on standard error
how that was. On Linux every process the command starts, in whatever session or process group, is killed once the
command itself has ended, the parent is gone, however that happened, or SIGUSR1 says so: orphans fall to this process
(PR_SET_CHILD_SUBREAPER). Other signals that ask to end go on to the command's process group. Killed itself, it takes
only the command along. A program that runs as another user cannot be killed; that is the kernel's rule. Elsewhere the
command just starts, `--tell` or not.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_TELL = "--tell"
_CANNOT_START = 127  # what a shell answers
_KILL_AGAIN_SECONDS = 0.005

_ASKS_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_END_ALL = signal.SIGUSR1
_WATCHED = (*_ASKS_TO_END, _END_ALL, signal.SIGCHLD)


def tie_to_parent(parent_pid: int, number: int) -> bool:
    """Have the kernel send this process the signal `number` as soon as its parent is gone.

    Returns whether the parent still was `parent_pid` once the tie was made.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent_pid


def main(arguments: list[str]) -> int:
    """Carry the command out; returns its exit status, and a signal that ended it ends this process, too."""
    tells = arguments[0] == _TELL
    parent_pid, command = int(arguments[tells]), arguments[tells + 1 :]
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
    report = os.dup(2) if tells else None
    _let_go_of_streams()
    status = _supervise(command_pid)
    if report is not None:
        with suppress(OSError):
            os.write(report, f"{_ending(os.waitstatus_to_exitcode(status))}\n".encode())
    return _end_like(status)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _execute(command: list[str]) -> int:
    """Become the command; returns only if that fails."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and that would be inherited
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        sys.stderr.flush()
    return _CANNOT_START


def _let_go_of_streams() -> None:
    # They are the command's: whoever holds their other ends has to see when it closes them.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


def _supervise(command_pid: int) -> int:
    """Wait until nothing is left and return how the command ended."""
    status, ending = 0, False
    while True:
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == command_pid:
                    status, ending = ended[1], True
        except ChildProcessError:
            return status
        if ending:
            # Again and again: what loses its parent becomes a child of this process.
            _kill_children()
        told = signal.sigtimedwait(_WATCHED, _KILL_AGAIN_SECONDS) if ending else signal.sigwaitinfo(_WATCHED)
        if told is not None and told.si_signo == _END_ALL:
            ending = True
        elif told is not None and told.si_signo in _ASKS_TO_END:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(command_pid, told.si_signo)


def _kill_children() -> None:
    for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - pathlib is slow to import
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123 - likewise
            # pid (name) state parent ...; the name may hold anything, parentheses too
            if int(stat.read().rpartition(b")")[2].split()[1]) == os.getpid():
                os.kill(int(name), signal.SIGKILL)


def _ending(exit_code: int) -> str:
    return f"It exited with status {exit_code}." if exit_code >= 0 else f"It was ended by signal {-exit_code}."


def _end_like(status: int) -> int:
    exit_code = os.waitstatus_to_exitcode(status)
    if exit_code >= 0:
        return exit_code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one memory image is enough
    with suppress(OSError):  # SIGKILL has no other handler
        signal.signal(-exit_code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), -exit_code)
    return 128 - exit_code  # what a shell answers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
