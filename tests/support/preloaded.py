"""Run `openclaw` as `python -m service` would, in forks of a process that has imported it.

Importing is most of what a short program does. A fork has its own environment, directory, files and status, like a new
process; its command line is the only thing that tells them apart.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import IO

_COMMAND_SECONDS = 90
_starting = Lock()
_SCRIPT = Path(__file__).with_name("preloaded_process.py")


Ended = subprocess.CompletedProcess[str]


class Program:
    """A running program, with what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, status_fd: int, command: str) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = os.fdopen(status_fd, "rb", buffering=0)
        self._command = command

    def poll(self) -> int | None:
        """Return the status if the program has ended."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the status, negative for a signal; raises `subprocess.TimeoutExpired`."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal unless the program has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._has_ended(timeout):
            self.returncode = os.waitstatus_to_exitcode(int(self._status.read(16)))
            self._status.close()
        return self.returncode

    def _has_ended(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


def start(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: int, stdout: int, stderr: int
) -> Program | subprocess.Popen[bytes]:
    """Start `openclaw` with `arguments`; the files are given by their descriptors."""
    if _interpreter(env) != _interpreter(os.environ):  # which only a new one obeys
        command = [sys.executable, "-m", "service", *arguments]
        return subprocess.Popen(command, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr)
    is_cooperative = bool({"agent", "gateway"}.intersection(arguments))
    status_fd, child_fd = os.pipe()
    request = json.dumps({"arguments": ["service", *arguments], "cwd": str(cwd), "env": dict(env)}).encode()
    try:
        with _starting:
            connection, _ = _process(is_cooperative)
            socket.send_fds(connection, [request], [stdin, stdout, stderr, child_fd])
            pid = int(connection.recv(16))
    finally:
        os.close(child_fd)
    return Program(pid, status_fd, " ".join(arguments))


def run(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], text: str = "") -> Ended:
    """Run `openclaw` with `arguments` to completion, with `text` on standard input."""
    with _text_file() as stdin, _text_file() as stdout, _text_file() as stderr:
        stdin.write(text)
        stdin.seek(0)
        fds = (file.fileno() for file in (stdin, stdout, stderr))
        program = start(arguments, cwd, env, *fds)
        try:
            status = program.wait(_COMMAND_SECONDS)
        finally:
            program.kill()
        for file in (stdout, stderr):
            file.seek(0)
        return subprocess.CompletedProcess(("openclaw", *arguments), status, stdout.read(), stderr.read())


def _interpreter(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith("PYTHON")}


def _text_file() -> IO[str]:
    return TemporaryFile("w+", encoding="utf-8")


@cache
def _process(is_cooperative: bool) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process that forks, which ends with this one, and return the connection to it."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", str(_SCRIPT), *(["--cooperative"] if is_cooperative else [])]
    with other:
        return own, subprocess.Popen(command, stdin=other.fileno())
