"""Which process this is, in a way that others can check: whether it still lives, if they can see it at all."""

from __future__ import annotations

import os
from pathlib import Path

from service.core.dataclass import record


@record
class ProcessIdentity:
    """A process.

    `host` is where its pid means something (a boot and a pid namespace), `start` tells it from a later one of that pid.
    """

    host: str
    pid: int
    start: str


def this_process() -> ProcessIdentity:
    """The process that asks."""
    pid = os.getpid()
    return ProcessIdentity(_this_host(), pid, _start_of(pid) or "")


def is_dead(process: ProcessIdentity) -> bool | None:
    """Whether `process` has ended; `None` if it runs where this process cannot look."""
    if process.host != _this_host():
        return None
    return _start_of(process.pid) != process.start


def _this_host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # nobody can be looked at, then
        return f"unknown:{os.getpid()}"


def _start_of(pid: int) -> str | None:
    """When the process began, in the kernel's ticks; `None` if there is none, or only what is left of it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # proc(5): field 3 is the state, field 22 the start time; after the name they are 0 and 19.
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
