"""Start of the arbiter that keeps several workers on one port."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from service.server.http1.server import Server


def become_arbiter(
    server: Server, host: str, *, workers: int, grace_seconds: float, dev: bool, profile: str | None
) -> NoReturn:
    """Replace this process by an arbiter that keeps `workers` processes on the socket that `server` has bound.

    The arbiter forks, so it must be a process without greenlets, threads or connections: a new program.
    """
    listener = server.socket.fileno()
    os.set_inheritable(listener, True)
    # -P: a directory called `service` in the current directory must not be imported.
    command = [sys.executable, "-P", "-m", "service.server.workers.arbiter", "--workers", str(workers)]
    command += ["--listener", str(listener), "--host", host, "--grace", str(grace_seconds)]
    command += ["--dev"] if dev else []
    command += [] if profile is None else ["--profile", profile]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 - deliberately without a shell
