"""Become a command that the kernel kills as soon as the process that started it is gone.

Run as a program, `python -I -S die_with_parent.py PARENT_PID COMMAND [ARGUMENT ...]`, with nothing but the standard
library. A program that changes its user as it starts (setuid) loses the tie; that is the kernel's rule. Where there is
no such tie, outside Linux, the command just starts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CANNOT_START = 127  # what a shell answers


def tie_to_parent(parent_pid: int, number: int) -> bool:
    """Have the kernel send this process the signal `number` as soon as its parent is gone.

    Returns whether the parent still was `parent_pid` once the tie was made.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    return os.getppid() == parent_pid


def main(arguments: list[str]) -> int:
    """Replace this process by the command; returns an exit status only if that fails."""
    parent_pid, command = int(arguments[0]), arguments[1:]
    if not tie_to_parent(parent_pid, signal.SIGKILL):  # which is not a matter of the command's good will
        return 1
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
    return _CANNOT_START


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
