"""The processes below one, as /proc has them: none, elsewhere than on Linux. Needs only the standard library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple


class Process(NamedTuple):
    """A process: a dead one is not yet reaped, or has threads that live on."""

    pid: int
    parent: int
    is_dead: bool
    threads: int
    resident_bytes: int


def descendants_of(pid: int, *, with_dead: bool = True) -> list[int]:
    """Return the id of every process below `pid`."""
    return [process.pid for process in tree_of(pid) if with_dead or not process.is_dead]


def tree_of(pid: int) -> list[Process]:
    """Return every process below `pid`."""
    children: dict[int, list[Process]] = {}
    for process in _processes():
        children.setdefault(process.parent, []).append(process)
    found = list(children.get(pid, ()))
    for process in found:
        found.extend(children.get(process.pid, ()))
    return found


def count_threads_of(user: int) -> int:
    """Return how many threads the user runs."""
    total = 0
    for process in _processes():
        with suppress(OSError):
            total += process.threads if os.stat(f"/proc/{process.pid}").st_uid == user else 0  # noqa: PTH116 - slow
    return total


def _processes() -> Iterator[Process]:
    if sys.platform != "linux":
        return
    page = os.sysconf("SC_PAGE_SIZE")
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is slow to import
        if name.isdecimal():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123 - as above
                # proc(5): after the name, which may hold anything, parentheses too, field 0 is the state, 1 the parent,
                # 17 the number of threads, 21 the resident pages.
                fields = stat.read().rpartition(b")")[2].split()
                yield Process(int(name), int(fields[1]), fields[0] == b"Z", int(fields[17]), int(fields[21]) * page)
