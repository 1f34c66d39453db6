"""Tie processes to each other and end what a command leaves behind. Needs only the standard library.

The launcher and the supervisor's guard are parents of one command each. On Linux both adopt the orphans below them
(PR_SET_CHILD_SUBREAPER), so that no process escapes by starting a session or losing its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from service.core.processes.process_tree import descendants_of

TERMINATION = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
KILL_AGAIN_SECONDS = 0.005

# linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38

# Isolated, Python finds nothing but its own library; the first argument is the directory of the package.
_RUN_MODULE = (
    "import sys; sys.path.append(sys.argv[1]); sys.exit(__import__(sys.argv[2], fromlist=['main']).main(sys.argv[3:]))"
)


def program(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs `main` of a module of this package with the standard library alone."""
    package = os.path.abspath(f"{__file__}/../../../..")  # noqa: PTH100 - pathlib is slow to import
    return [sys.executable, "-I", "-S", "-c", _RUN_MODULE, package, module, *arguments]


def tie_to_parent(parent_pid: int, number: int) -> bool:
    """Have the kernel send this process the signal `number` when its parent ends (Linux).

    Returns whether the parent was still `parent_pid` after the request. A fork does not inherit the setting.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent_pid


def adopt_orphans() -> None:
    """Become the parent of orphans among the descendants. A fork does not inherit the setting."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """Have no program that this process starts gain privileges by being executed, for example `sudo`."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_dumpable(*, on: bool) -> None:
    """Permit or deny processes of the same user access to this one's memory and files in /proc."""
    _prctl(_PR_SET_DUMPABLE, int(on))


def kill_each(pids: Iterable[int], number: int) -> None:
    """Send the signal to each process that exists and may be signalled."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def reap(child_pid: int, forwarded: Collection[int], forward: Callable[[int], None], end_all: int = 0) -> int:
    """Wait until no descendant is left and return the wait status of the child.

    The signals in `forwarded` are passed to `forward`. After the child's end, or on the signal `end_all`, all
    descendants are killed. Those signals and SIGCHLD must be blocked.
    """
    watched = {*forwarded, signal.SIGCHLD, *([end_all] if end_all else ())}
    status, ending = 0, False
    while True:
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == child_pid:
                    status, ending = ended[1], True
        except ChildProcessError:
            return status
        if ending:
            # Repeated, because a process that was just being forked was not seen.
            kill_each(descendants_of(os.getpid()), signal.SIGKILL)
        received = signal.sigtimedwait(watched, KILL_AGAIN_SECONDS) if ending else signal.sigwaitinfo(watched)
        if received is not None and received.si_signo == end_all:
            ending = True
        elif received is not None and received.si_signo in forwarded:
            forward(received.si_signo)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
