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


def main(arguments: list[str]) -> int:
    """Replace this process by the command; returns an exit status only if that fails."""
    parent_pid, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        # SIGKILL, since it must not be a matter of the command's good will.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        return 1  # it was gone before the tie was made
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
    return _CANNOT_START


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
