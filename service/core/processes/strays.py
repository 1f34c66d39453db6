"""Find processes of commands whose guard and supervisor were both killed. Needs only the standard library.

Their orphans become children of the gateway, which is a subreaper. It recognises them by a lowered hard limit, which
every process of a command inherits and cannot raise again without privileges.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from service.core.processes.process_tree import descendants_of, tree_of
from service.core.processes.reaper import kill_each

_RLIMIT_LOCKS = 10  # asm-generic/resource.h; the kernel does not use it any more
_HIGHEST_MARK = 1 << 62
_AGAIN_SECONDS = 0.01
_EMPTY_LOOKS = 20


def mark() -> None:
    """Mark this process and all it starts from now on as those of a command; does nothing elsewhere than on Linux."""
    if sys.platform == "linux":
        _, most = resource.getrlimit(_RLIMIT_LOCKS)
        limit = _HIGHEST_MARK if most == resource.RLIM_INFINITY else max(most - 1, 0)
        resource.setrlimit(_RLIMIT_LOCKS, (limit, limit))


def end_strays(seconds: float, sleep: Callable[[float], object]) -> bool:
    """Kill the marked children of this process, and everything below them; return whether all are gone.

    Looks again for a moment: a supervisor that is being killed still has its children. Gives up after `seconds`.
    """
    give_up_at, looks = time.monotonic() + seconds, 0
    while looks < _EMPTY_LOOKS:
        strays = list(_strays())
        if strays and time.monotonic() >= give_up_at:
            return False
        for pid in strays:
            kill_each((pid, *descendants_of(pid)), signal.SIGKILL)
        looks = 0 if strays else looks + 1
        sleep(_AGAIN_SECONDS)
    return True


def _strays() -> Iterator[int]:
    own, own_limit = os.getpid(), _limit_of(os.getpid())
    for process in tree_of(own):
        if process.parent == own and _is_lower(_limit_of(process.pid), own_limit) and not _is_reaped(process.pid):
            yield process.pid


def _is_reaped(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def _limit_of(pid: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return resource.prlimit(pid, _RLIMIT_LOCKS)[1]
    except OSError:  # it has ended
        return None


def _is_lower(limit: int | None, than: int | None) -> bool:
    if limit is None or than is None or limit == resource.RLIM_INFINITY:
        return False
    return than == resource.RLIM_INFINITY or limit < than
