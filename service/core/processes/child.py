"""A program the gateway starts and keeps: it ends with the gateway, however that ends.

The program is in a session of its own, so that a Ctrl-C in the terminal does not reach it, and everything it starts is
ended together with it: `launcher.py`, its parent, says how and where that holds.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from service.core import concurrency

_LAUNCHER = Path(__file__).with_name("launcher.py")
_MAX_LOG_BYTES = 1024 * 1024
_KEPT_LOG_BYTES = 64 * 1024
_LAST_OUTPUT_BYTES = 4096
_POLL_SECONDS = 0.01
_INSIST_SECONDS = 2.0
#: Tells the launcher to kill all there is. It is no launcher any more where it has become the program itself.
_END_ALL = signal.SIGUSR1 if sys.platform == "linux" else signal.SIGKILL


class ChildProcess:
    """One run of `command`, whose first word is a path, with exactly the environment `env`.

    Its standard input is a pipe that ends with the gateway; its output is appended to `log_path`, a file that only its
    owner can read, or to a nameless temporary file. With `stdout`, a descriptor that stays the caller's, only its
    standard error goes there. It has to be started in a thread that stays, the main one: the kernel ends it together
    with that. Raises `OSError` when no process can be made; a command that cannot be executed is a process that ends
    with status 127.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: str | None,
        env: Mapping[str, str],
        log_path: Path | None = None,
        *,
        stdout: int | None = None,
    ) -> None:
        self.stopped = False
        self._log = _open_log(log_path)
        self._log_start = self._log.seek(0, os.SEEK_END)
        self._last_output = ""
        self._buried = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *command],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=self._log if stdout is None else stdout,
                stderr=self._log,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        except OSError:
            self._log.close()
            raise

    @property
    def pid(self) -> int:
        """The id of the process that stands for it: on Linux its launcher, which ends as it ends."""
        return self._process.pid

    @property
    def last_output(self) -> str:
        """The end of what this run has printed, at most 4 KiB."""
        return self._last_output if self._buried else self._read_log_end(_LAST_OUTPUT_BYTES).decode(errors="replace")

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        status = self._process.poll()
        if status is not None and not self._buried:
            self._bury()
        return status is None

    def ending(self) -> str | None:
        """How it ended, for people (`exited with status 1`), or `None` while it runs."""
        if self.is_running():
            return None
        status = self._process.returncode
        return f"exited with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"

    def send(self, data: bytes) -> None:
        """Write all of `data` to its standard input, waiting while it does not read; raises `OSError` once it ended."""
        rest = memoryview(data)
        while rest:
            if self._buried or self._process.stdin is None:
                raise BrokenPipeError
            descriptor = self._process.stdin.fileno()  # anew after each wait: it may be closed by now
            os.set_blocking(descriptor, False)
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                concurrency.sleep(_POLL_SECONDS)

    def stop(self, grace_seconds: float = 5.0) -> None:
        """End it: SIGTERM to it, and when that has not helped in time SIGKILL to it and everything it started."""
        self.stopped = True
        if self.is_running():
            self._signal(signal.SIGTERM)
        give_up_at = time.monotonic() + grace_seconds
        while self.is_running():
            if time.monotonic() >= give_up_at:
                insist = time.monotonic() >= give_up_at + _INSIST_SECONDS
                self._signal(signal.SIGKILL if insist else _END_ALL)
            concurrency.sleep(_POLL_SECONDS)

    def trim_log(self) -> None:
        """Cut the log to its last 64 KiB when it has grown beyond 1 MiB."""
        if self._buried or self._log.seek(0, os.SEEK_END) <= _MAX_LOG_BYTES:
            return
        kept = self._read_log_end(_KEPT_LOG_BYTES)
        self._log.truncate(0)
        self._log_start = 0
        self._log.write(kept)

    def _bury(self) -> None:
        self._last_output = self.last_output
        self._buried = True
        if sys.platform != "linux":
            # What it started must not outlive it. Its id is no other group's as long as one of them lives.
            self._signal(signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._log.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read_log_end(self, length: int) -> bytes:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log_start, size - length))
        return self._log.read(length)


def _open_log(path: Path | None) -> IO[bytes]:
    if path is None:
        handle, name = tempfile.mkstemp(prefix="openclaw-")
        Path(name).unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # Appending, so that cutting the file also moves the place where the program writes next.
    fcntl.fcntl(handle, fcntl.F_SETFL, os.O_APPEND)
    return os.fdopen(handle, "r+b", buffering=0)
