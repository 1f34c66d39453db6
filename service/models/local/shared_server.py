"""Share a local program between processes, one of which runs it.

The process with the lock on `<id>.lock` runs the program and writes its endpoint to `<id>.json`, readable by its owner
only. Users hold a shared lock on `<id>.users`; the program is stopped under an exclusive one. The kernel releases the
locks of a process that dies, so no cleanup is necessary: the next process that needs the program runs it.
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

#: Address and credentials of a running program.
Endpoint = Mapping[str, Any]

_POLL_SECONDS = 0.02
_CONNECT_SECONDS = 1.0


class Share(Protocol):
    """Coordination of the processes that may run one program. Methods do not block unless documented."""

    def find(self) -> Endpoint | None:
        """Return the endpoint of the program if another process runs it."""

    def use(self) -> AbstractContextManager[None]:
        """Return a context in which the program is not stopped. Waits for a stop in progress."""

    def claim(self) -> bool:
        """Return True if this process may run the program; it has to `publish` or `release` then."""

    def publish(self, endpoint: Endpoint) -> None:
        """Publish the endpoint of the ready program to other processes."""

    def withdraw(self) -> None:
        """Keep other processes from starting to use the program; current users may finish."""

    def was_used(self) -> bool:
        """Return True if another process has used the program since the previous call."""

    def begin_stop(self) -> bool:
        """Return True if the program may be stopped: no other process uses it, and none will before `release`."""

    def release(self) -> None:
        """Let another process run the program. Idempotent."""


class Unshared:
    """A program that only this process uses."""

    def find(self) -> None:
        """Return None: no other process runs it."""

    @contextmanager
    def use(self) -> Iterator[None]:
        """Do nothing."""
        yield

    def claim(self) -> bool:
        """Return True."""
        return True

    def publish(self, endpoint: Endpoint) -> None:
        """Do nothing."""

    def withdraw(self) -> None:
        """Do nothing."""

    def was_used(self) -> bool:
        """Return False."""
        return False

    def begin_stop(self) -> bool:
        """Return True."""
        return True

    def release(self) -> None:
        """Do nothing."""


class SharedByLocks:
    """Coordination by file locks in `directory`, on one machine; `service_id` names the program."""

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
        """Return the endpoint if another process runs the program and it accepts connections."""
        if self._owned is not None or not self._owner_path.exists():
            return None
        probe = self._try_lock(self._owner_path, fcntl.LOCK_SH)
        if probe is not None:  # no process runs it; the file is stale
            os.close(probe)
            return None
        try:
            endpoint: Endpoint = orjson.loads(self._endpoint_path.read_bytes())
        except (OSError, ValueError):
            return None
        return endpoint if _listens(endpoint.get("address")) else None

    @contextmanager
    def use(self) -> Iterator[None]:
        """Hold the shared lock and update its timestamp."""
        while (lock := self._try_lock(self._users_path, fcntl.LOCK_SH)) is None:
            concurrency.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            os.utime(lock)
            os.close(lock)

    def claim(self) -> bool:
        """Take the owner's lock."""
        if self._owned is None:
            self._owned = self._try_lock(self._owner_path, fcntl.LOCK_EX)
        return self._owned is not None

    def publish(self, endpoint: Endpoint) -> None:
        """Write the endpoint file atomically."""
        descriptor, name = tempfile.mkstemp(prefix=f".{self._endpoint_path.name}.", dir=self._directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(endpoint))
        Path(name).replace(self._endpoint_path)

    def withdraw(self) -> None:
        """Delete the endpoint file."""
        if self._owned is not None:
            self._endpoint_path.unlink(missing_ok=True)

    def was_used(self) -> bool:
        """Return True if the shared lock is held or its timestamp has changed."""
        try:
            used_at = self._users_path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        touched = self._last_use is not None and used_at != self._last_use
        self._last_use = used_at
        if (lock := self._try_lock(self._users_path, fcntl.LOCK_EX)) is None:
            return True
        os.close(lock)
        return touched

    def begin_stop(self) -> bool:
        """Take the exclusive lock."""
        if self._stopping is None:
            self._stopping = self._try_lock(self._users_path, fcntl.LOCK_EX)
        return self._stopping is not None

    def release(self) -> None:
        """Delete the endpoint file, then release the locks."""
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
        return True  # no address was published
    with suppress(OSError), socket.create_connection((address[0], address[1]), timeout=_CONNECT_SECONDS):
        return True
    return False


def wait_for_stop(share: Share, seconds: float) -> bool:
    """Wait at most `seconds` until the program may be stopped; return True if it may."""
    give_up_at = time.monotonic() + seconds
    while not share.begin_stop():
        if time.monotonic() >= give_up_at:
            return False
        concurrency.sleep(_POLL_SECONDS)
    return True
