"""Long-running child processes that end with the gateway, even if it is killed.

A child runs in its own session, so that Ctrl-C in the terminal does not reach it. Everything it starts ends together
with it; `launcher.py`, its parent, documents how and on which systems.
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
from service.core.processes.launcher import END_ALL, launched

_MAX_LOG_BYTES = 1024 * 1024
_KEPT_LOG_BYTES = 64 * 1024
_LAST_OUTPUT_BYTES = 4096
_POLL_SECONDS = 0.01
_INSIST_SECONDS = 2.0


class ChildProcess:
    """One run of `command`, whose first word is a path, with exactly the environment `env`.

    Standard input is a pipe that closes with the gateway. Output is appended to `log_path`, readable by its owner
    only, or to an unnamed temporary file; with `stdout`, a descriptor that the caller keeps, only standard error goes
    there. Start it in the main thread: the kernel ends it together with the thread that started it. Raises `OSError`
    when no process can be created; a command that cannot be executed ends with status 127.
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
        self._reaped = False
        try:
            self._process = subprocess.Popen(
                launched(command),
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
        """The process id: on Linux that of the launcher, which ends when the command ends."""
        return self._process.pid

    @property
    def last_output(self) -> str:
        """The last 4 KiB of this run's output."""
        return self._last_output if self._reaped else self._read_log_end(_LAST_OUTPUT_BYTES).decode(errors="replace")

    def is_running(self) -> bool:
        """Return whether it has not ended."""
        status = self._process.poll()
        if status is not None and not self._reaped:
            self._reap()
        return status is None

    def ending(self) -> str | None:
        """Describe how it ended (`exited with status 1`); `None` while it runs."""
        if self.is_running():
            return None
        status = self._process.returncode
        return f"exited with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"

    def send(self, data: bytes) -> None:
        """Write all of `data` to its standard input, waiting for it to read; raises `OSError` after its end."""
        rest = memoryview(data)
        while rest:
            if self._reaped or self._process.stdin is None:
                raise BrokenPipeError
            descriptor = self._process.stdin.fileno()  # read again after each wait: it may have been closed
            os.set_blocking(descriptor, False)
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                concurrency.sleep(_POLL_SECONDS)

    def stop(self, grace_seconds: float = 5.0) -> None:
        """End it with SIGTERM; after `grace_seconds`, kill it and everything it started."""
        self.stopped = True
        if self.is_running():
            self._signal(signal.SIGTERM)
        give_up_at = time.monotonic() + grace_seconds
        while self.is_running():
            if time.monotonic() >= give_up_at:
                insist = time.monotonic() >= give_up_at + _INSIST_SECONDS
                self._signal(signal.SIGKILL if insist else END_ALL)
            concurrency.sleep(_POLL_SECONDS)

    def trim_log(self) -> None:
        """Cut the log to its last 64 KiB when it has grown beyond 1 MiB."""
        if self._reaped or self._log.seek(0, os.SEEK_END) <= _MAX_LOG_BYTES:
            return
        kept = self._read_log_end(_KEPT_LOG_BYTES)
        self._log.truncate(0)
        self._log_start = 0
        self._log.write(kept)

    def _reap(self) -> None:
        self._last_output = self.last_output
        self._reaped = True
        if sys.platform != "linux":
            # End the process group as well. The group's id is not reused while a member lives.
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
    # In append mode the program continues at the new end after the file is cut.
    fcntl.fcntl(handle, fcntl.F_SETFL, os.O_APPEND)
    return os.fdopen(handle, "r+b", buffering=0)
