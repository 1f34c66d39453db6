"""Process-wide settings of a serving process: no access for other processes, and memory returned to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

from service.core.processes.reaper import set_dumpable

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_THRESHOLD_BYTES = 4 * 1024 * 1024
_ARENAS = 2


def make_undumpable() -> None:
    """Hide this process's environment and memory from other processes of its user.

    Commands that an agent runs belong to that user, and could read API keys from `/proc/<pid>/environ`. The setting is
    inherited by a fork and reset by an exec. Core dumps are off as well. Does nothing on systems other than Linux.
    """
    set_dumpable(on=False)


def return_freed_memory() -> None:
    """Have glibc return freed blocks to the system; does nothing with another C library.

    By default it raises its threshold for separate mappings to 32 MiB once such a block was freed, and keeps twice
    that at the top of the heap, in up to eight arenas per core: large bodies stay resident after they are gone.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in (
            (_M_MMAP_THRESHOLD, _THRESHOLD_BYTES),
            (_M_TRIM_THRESHOLD, _THRESHOLD_BYTES),
            (_M_ARENA_MAX, _ARENAS),
        ):
            mallopt(option, value)


def trim_heap() -> None:
    """Return the free pages inside glibc's heaps, too; takes some milliseconds. No effect with another C library."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
