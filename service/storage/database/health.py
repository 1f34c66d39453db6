"""Health of the database: the result of the last write, stalled writes, damage, and a probe with a time limit."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from sqlalchemy.exc import SQLAlchemyError

from service.core.concurrency import Event, spawn
from service.storage.database.errors import StoreError, is_damage, root_cause

#: Time limit of the probe, so that a readiness check answers within two seconds.
PROBE_SECONDS = 1.5

#: A write that takes longer than this counts as stalled.
STALLED_SECONDS = 5.0


class DatabaseHealth:
    """Tracks failures of the database `name`; `probe` reads from it and raises when it cannot.

    A failed write counts until another one succeeds; every gateway writes its heartbeat every few seconds. Damage
    counts until the process ends: a later success in undamaged pages proves nothing.
    """

    def __init__(self, name: str, probe: Callable[[], None]) -> None:
        self._name = name
        self._probe = probe
        self._probing: _Probe | None = None
        #: When the write that is being executed began, in monotonic seconds.
        self.write_started_at: float | None = None
        self._write_error: Exception | None = None
        self._damage: Exception | None = None

    def record_write(self, error: Exception | None) -> None:
        """Record the result of a write."""
        self._write_error = error
        if error is not None:
            self.record_error(error)

    def record_error(self, error: Exception) -> None:
        """Record damage that a read or write has found."""
        if is_damage(error):
            self._damage = error

    def check(self) -> None:
        """Raise `StoreError` if the database is known or found to be unusable; takes at most `PROBE_SECONDS`."""
        if self._damage is not None:
            text = (
                f"The {self._name} is damaged ({root_cause(self._damage)}). Restore a backup and restart the gateway."
            )
            raise StoreError(text)
        if self._write_error is not None:
            raise StoreError(f"The last write to the {self._name} failed: {root_cause(self._write_error)}")
        started_at = self.write_started_at
        if started_at is not None and monotonic() - started_at > STALLED_SECONDS:
            raise StoreError(f"A write to the {self._name} has been waiting for {monotonic() - started_at:.0f} s.")
        self._run_probe()

    def _run_probe(self) -> None:
        # One probe at a time: of a database that hangs no more than one connection is held.
        if self._probing is None:
            self._probing = _Probe()
            spawn(self._execute, self._probing)
        probing = self._probing
        if not probing.done.wait(PROBE_SECONDS):
            raise StoreError(f"The {self._name} did not respond within {PROBE_SECONDS:g} s.")
        if probing.error is not None:
            raise StoreError(f"The {self._name} cannot be read: {root_cause(probing.error)}") from probing.error

    def _execute(self, probing: _Probe) -> None:
        try:
            self._probe()
        except (SQLAlchemyError, StoreError, RuntimeError) as error:  # the last from a thread that was closed
            self.record_error(error)
            probing.error = error
        finally:
            self._probing = None
            probing.done.set()


class _Probe:
    """A running probe."""

    def __init__(self) -> None:
        self.done = Event()
        self.error: Exception | None = None
