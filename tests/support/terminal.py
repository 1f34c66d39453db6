"""A program on a terminal: what it prints is read, and what somebody types is sent, as it asks."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PATIENCE_SECONDS = 60.0


class Terminal:
    """`openclaw` with `arguments` on a pseudo-terminal of its own; `shown` is all that it has printed.

    `program` is the command line of another program, before the arguments.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        program: Sequence[str] = (sys.executable, "-m", "service"),
    ) -> None:
        self.shown = ""
        self._own, theirs = pty.openpty()
        command = [*program, *arguments]
        environment = {**env, "TERM": "xterm"}
        self._process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def type_after(self, prompt: str, text: str) -> None:
        """Wait until it has printed `prompt`, and type a line."""
        before = len(self.shown)
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while prompt not in self.shown[before:]:
            assert time.monotonic() < give_up_at, self.shown
            assert self._read(), self.shown
        os.write(self._own, f"{text}\n".encode())

    def wait(self) -> int:
        """Read to the end and return the status."""
        while self._read():
            pass
        os.close(self._own)
        return self._process.wait(PATIENCE_SECONDS)

    def _read(self) -> bytes:
        data = b""
        with suppress(OSError):  # the other side is closed
            data = os.read(self._own, 65536)
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return data
