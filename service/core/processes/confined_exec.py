"""Confine this process to a sandbox and become a command. Needs only the standard library."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from service.core.processes.sandbox import Confinement, Sandbox

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_PACKAGE = str(Path(__file__).parents[3])
# It finds the package by the path that is its first argument; isolated, Python finds nothing but its own library.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from service.core.processes.confined_exec import main; "
    "sys.exit(main(sys.argv[2:]))"
)
_CANNOT_START = 127  # as in a shell


def words_before(sandbox: Sandbox, temporary: str) -> tuple[str, ...]:
    """Return the words to put before a command, whose first word is a path, to run it in `sandbox`.

    With Landlock the command can also write to the directory `temporary`.
    """
    return (sys.executable, "-I", "-S", "-c", _PROGRAM, _PACKAGE, json.dumps(sandbox), temporary)


def main(arguments: list[str]) -> int:
    """Run a command in the sandbox given by `words_before`; returns only if that fails."""
    sandbox, temporary, command = Sandbox(*json.loads(arguments[0])), arguments[1], arguments[2:]
    try:
        confinement = Confinement(sandbox, command, str(Path.cwd()), temporary)
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would inherit that
            signal.signal(number, signal.SIG_DFL)
        if sandbox.kind == "landlock":
            _start_broker(confinement)
        confinement.enforce()
        os.execv(confinement.argv[0], confinement.argv)  # noqa: S606 - deliberately without a shell
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]} in its sandbox: {error.strerror or error}\n")
    return _CANNOT_START


def _start_broker(confinement: Confinement) -> None:
    """Start the process that answers the command's calls: not as its child, which it might wait for."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):  # the streams are the command's
                os.dup2(nothing, descriptor)
            broker = confinement.open_broker()
            if broker is not None:
                broker.serve()
    finally:
        os._exit(0)
