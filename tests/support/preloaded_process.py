"""The process behind `support.preloaded`: imports the gateway, then forks for each request from standard input.

`--cooperative`: patched by gevent, as commands that run agents are.
"""

from __future__ import annotations

import _socket  # the one that gevent does not patch
import array
import gc
import json
import os
import signal
import sys
from typing import Any

_MAX_REQUEST = 1 << 20
_FDS = array.array("i")


def main() -> None:
    """Serve until the requester has gone; in a fork, run the program."""
    fork, wait = os.fork, os.waitpid
    _preload("--cooperative" in sys.argv)
    gc.freeze()  # so that no fork copies the modules to look for garbage in them, at the latest when it ends
    requester = _socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, fds = _receive(requester)
        if not request:
            return
        if fork() == 0:
            break
        for fd in fds:
            os.close(fd)
    # The parent of the program: it waits for the program's end, and tells its status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = fork()
    if pid:
        requester.send(b"%d" % pid)
        for fd in (0, 1, 2, *fds[:3], requester.fileno()):
            os.close(fd)
        os.write(fds[3], b"%d" % wait(pid, 0)[1])
        os._exit(0)
    requester.close()
    _become(request, fds)
    from service.__main__ import main as run_program  # noqa: PLC0415  # as in a process of its own

    run_program()


def _preload(is_cooperative: bool) -> None:
    if is_cooperative:
        from service.server.monkey_patch import make_cooperative  # noqa: PLC0415  # before all others

        make_cooperative()
    import service.cli.shared.serve  # noqa: F401, PLC0415  # after the patch


def _receive(requester: Any) -> tuple[dict[str, Any], list[int]]:
    message, ancillary, _, _ = requester.recvmsg(_MAX_REQUEST, _socket.CMSG_SPACE(4 * _FDS.itemsize))
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    return json.loads(message) if message else {}, list(fds)


def _become(request: dict[str, Any], fds: list[int]) -> None:
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
    for fd in fds:
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = request["arguments"]


main()
