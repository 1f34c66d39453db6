"""A program of this machine that several processes use and one of them runs.

Who holds a lock on `<id>.lock` runs the program and writes how to reach it into `<id>.json`, for its owner alone. Who
uses it holds a shared lock on `<id>.users`; it is stopped under an exclusive one. The kernel lets go of a lock when its
holder dies, however that happens, so that nothing has to be mended afterwards: the next who needs the program runs it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import orjson

from service.core import concurrency

#: How a program is reached: what its user needs to know beside the configuration.
Endpoint = Mapping[str, Any]

_POLL_SECONDS = 0.02
_CONNECT_SECONDS = 1.0


class Share(Protocol):
    """What the processes that may run one program agree on. Nothing here waits unless it says so."""

    def find(self) -> Endpoint | None:
        """How to reach the program that another process runs, if one does."""

    def use(self) -> AbstractContextManager[None]:
        """A context in which the program, if it runs, is not stopped. May wait for a stop that is under way."""

    def claim(self) -> bool:
        """Whether this process may now run the program: no other does. It has to `publish` or `release` then."""

    def publish(self, endpoint: Endpoint) -> None:
        """Tell the others that the program is ready and how to reach it."""

    def withdraw(self) -> None:
        """Have nobody else begin to use the program; those who use it may finish."""

    def was_used(self) -> bool:
        """Whether another process has used the program since this was asked before."""

    def begin_stop(self) -> bool:
        """Whether the program may be stopped: no other process uses it, and none will before `release`."""

    def release(self) -> None:
        """Let another process run the program. Twice is a no-op."""


class Unshared:
    """A program that this process alone runs and uses."""

    def find(self) -> None:
        """Nobody else runs it."""

    @contextmanager
    def use(self) -> Iterator[None]:
        """There is nobody to agree with."""
        yield

    def claim(self) -> bool:
        """It may run it."""
        return True

    def publish(self, endpoint: Endpoint) -> None:
        """Nobody has to be told."""

    def withdraw(self) -> None:
        """Nobody else would."""

    def was_used(self) -> bool:
        """By nobody else."""
        return False

    def begin_stop(self) -> bool:
        """It may be stopped."""
        return True

    def release(self) -> None:
        """Nobody waits for it."""


class SharedByLocks:
    """The processes that have the same `directory`, on one machine; `service_id` names the program among others."""

    def __init__(self, directory: Path, service_id: str) -> None:
        self._directory = directory
        name = quote(service_id, safe="")
        self._owner_path = directory / f"{name}.lock"
        self._users_path = directory / f"{name}.users"
        self._endpoint_path = directory / f"{name}.json"
        self._owned: int | None = None  # the locked descriptor of a process that runs it
        self._stopping: int | None = None
        self._last_use: int | None = None

    def find(self) -> Endpoint | None:
        """How to reach the program, if another process runs it and it listens."""
        if self._owned is not None or not self._owner_path.exists():
            return None
        probe = self._try_lock(self._owner_path, fcntl.LOCK_SH)
        if probe is not None:  # nobody runs it; what was written is old
            os.close(probe)
            return None
        try:
            endpoint: Endpoint = orjson.loads(self._endpoint_path.read_bytes())
        except (OSError, ValueError):
            return None
        return endpoint if _listens(endpoint.get("address")) else None

    @contextmanager
    def use(self) -> Iterator[None]:
        """Hold the shared lock, and leave a trace of it."""
        while (held := self._try_lock(self._users_path, fcntl.LOCK_SH)) is None:
            concurrency.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            os.utime(held)
            os.close(held)

    def claim(self) -> bool:
        """Take the lock of who runs it."""
        if self._owned is None:
            self._owned = self._try_lock(self._owner_path, fcntl.LOCK_EX)
        return self._owned is not None

    def publish(self, endpoint: Endpoint) -> None:
        """Write the file, whole or not at all."""
        descriptor, name = tempfile.mkstemp(prefix=f".{self._endpoint_path.name}.", dir=self._directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(endpoint))
        Path(name).replace(self._endpoint_path)

    def withdraw(self) -> None:
        """Take back what was written."""
        if self._owned is not None:
            self._endpoint_path.unlink(missing_ok=True)

    def was_used(self) -> bool:
        """Whether somebody holds the shared lock, or has touched its file since."""
        try:
            used_at = self._users_path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        touched = self._last_use is not None and used_at != self._last_use
        self._last_use = used_at
        if (held := self._try_lock(self._users_path, fcntl.LOCK_EX)) is None:
            return True
        os.close(held)
        return touched

    def begin_stop(self) -> bool:
        """Take the exclusive lock."""
        if self._stopping is None:
            self._stopping = self._try_lock(self._users_path, fcntl.LOCK_EX)
        return self._stopping is not None

    def release(self) -> None:
        """Take back what was written, then let go of the locks."""
        self.withdraw()
        if self._owned is not None:
            os.close(self._owned)
            self._owned = None
        if self._stopping is not None:
            os.close(self._stopping)
            self._stopping = None

    def _try_lock(self, path: Path, kind: int) -> int | None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _listens(address: Any) -> bool:
    if not isinstance(address, list):
        return True  # nobody said where
    with suppress(OSError), socket.create_connection((address[0], address[1]), timeout=_CONNECT_SECONDS):
        return True
    return False


def wait_for_stop(share: Share, seconds: float) -> bool:
    """Wait until the program may be stopped, at most `seconds`; whether it may."""
    give_up_at = time.monotonic() + seconds
    while not share.begin_stop():
        if time.monotonic() >= give_up_at:
            return False
        concurrency.sleep(_POLL_SECONDS)
    return True
