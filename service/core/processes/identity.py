"""Process identities that other processes can check for liveness."""

from __future__ import annotations

import os
from pathlib import Path

from service.core.dataclass import record


@record
class ProcessIdentity:
    """A process.

    `host` is the scope of its pid (a boot and a pid namespace), `start` distinguishes it from later users of the pid.
    """

    host: str
    pid: int
    start: str


def this_process() -> ProcessIdentity:
    """Return the identity of the current process."""
    pid = os.getpid()
    return ProcessIdentity(_this_host(), pid, _start_of(pid) or "")


def is_dead(process: ProcessIdentity) -> bool | None:
    """Return whether `process` has ended; `None` if it runs on another host or in another namespace."""
    if process.host != _this_host():
        return None
    return _start_of(process.pid) != process.start


def _this_host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no other process is visible
        return f"unknown:{os.getpid()}"


def _start_of(pid: int) -> str | None:
    """Return the start time of a process in clock ticks; `None` if there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # proc(5): field 3 is the state, field 22 the start time; after the name they are 0 and 19.
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
