"""Start processes, and inspect those that may end at any moment."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start `command`; if it is still running at the end of the block, or when that fails, it is killed."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def has_ended(process: int | psutil.Process) -> bool:
    """Return True if a process is gone or a zombie."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def running_children(pid: int | None = None, *, recursive: bool = True) -> list[psutil.Process]:
    """The processes below `pid`, or below the test itself, that have not ended."""
    try:
        children = psutil.Process(pid).children(recursive=recursive)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if not has_ended(child)]


def command_of(process: psutil.Process) -> list[str]:
    """The command line of a process; empty once it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
