"""Pruning of expired sessions, run records and idempotency keys.

Each transaction deletes a small batch and is followed by a pause for other writers. A session that a run holds, or that
was used since it was found, is kept. Several gateways and the command line may prune one database concurrently.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from time import monotonic

from service.config.sessions import MaintenanceConfig
from service.core.concurrency import Event, sleep, spawn
from service.core.dataclass import record
from service.storage.database.database import Database
from service.storage.database.errors import StoreError
from service.storage.limits.counters import LimitCounters
from service.storage.runs.idempotency import IdempotencyStore
from service.storage.runs.kept_answers import KeptAnswers
from service.storage.sessions.retention import (
    DeleteExpired,
    DeleteIdleLeases,
    DeleteOldApprovals,
    DeleteOldRuns,
    ExpiredSession,
    RetentionPolicy,
)

#: Delay of a gateway's first pruning after its start, and the interval between prunings.
FIRST_SECONDS = 3.0
INTERVAL_SECONDS = 600.0

#: Limits of one transaction; a longer session is deleted alone.
SESSIONS_PER_BATCH = 16
ENTRIES_PER_BATCH = 2_000

#: The pause after a transaction is this multiple of its duration, and at least the minimum.
_PAUSE_FACTOR = 3.0
_MIN_PAUSE_SECONDS = 0.01

_log = logging.getLogger("openclaw.storage")


@record
class PruneResult:
    """Numbers of deleted rows."""

    sessions: int = 0
    runs: int = 0
    idempotency_keys: int = 0


class Pruner:
    """Deletes data that has expired according to `config`. `clock` returns seconds since 1970."""

    def __init__(self, database: Database, config: MaintenanceConfig, clock: Callable[[], float]) -> None:
        self._database = database
        self._config = config
        self._clock = clock
        self._policy = RetentionPolicy(database, config)
        self._stopped = Event()
        self._stopped.set()

    def start(self, first_seconds: float = FIRST_SECONDS, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Prune periodically in the background until `stop`."""
        self._stopped.clear()
        spawn(self._prune_periodically, first_seconds, interval_seconds)

    def stop(self) -> None:
        """Start no further batch. A no-op before `start` and after the first call."""
        self._stopped.set()

    def iter_expired(self) -> Iterator[ExpiredSession]:
        """Iterate over the sessions that `run` would delete, unless a run holds them. Raises `StoreError`."""
        return self._policy.iter_expired_sessions(self._now_ms())

    def run(self, keep_going: Callable[[], bool] = lambda: True) -> PruneResult:
        """Delete everything that has expired while `keep_going()` is true. Raises `StoreError`."""
        sessions = sum(self._delete_sessions(batch) for batch in _batches(self.iter_expired()) if keep_going())
        self._delete_leases(keep_going)
        self._delete_approvals(keep_going)
        return PruneResult(sessions, self._delete_runs(keep_going), self._delete_keys(keep_going))

    def _prune_periodically(self, first_seconds: float, interval_seconds: float) -> None:
        self._stopped.wait(first_seconds)
        while not self._stopped.is_set():
            try:
                self._prune()
            except StoreError as error:
                if not self._stopped.is_set():
                    _log.warning("pruning failed: %s", error)
            self._stopped.wait(interval_seconds)

    def _prune(self) -> None:
        if self._config.mode == "warn":
            count = sum(1 for _ in self.iter_expired())
            if count:
                _log.warning(
                    '%d sessions have expired; they are kept because session.maintenance.mode is "warn"', count
                )
            self._delete_keys(self._is_running)
            return
        deleted = self.run(self._is_running)
        if deleted.sessions or deleted.runs:
            _log.info("pruned %d sessions and %d run records", deleted.sessions, deleted.runs)

    def _is_running(self) -> bool:
        return not self._stopped.is_set()

    def _delete_sessions(self, batch: Sequence[ExpiredSession]) -> int:
        began_at = monotonic()
        count = self._database.write(DeleteExpired(batch))
        _pause(began_at)
        return count

    def _delete_runs(self, keep_going: Callable[[], bool]) -> int:
        count = 0
        for run_ids in self._policy.iter_expired_runs(self._now_ms()):
            if not keep_going():
                break
            began_at = monotonic()
            if run_ids:
                count += self._database.write(DeleteOldRuns(run_ids))
            _pause(began_at)
        return count

    def _delete_leases(self, keep_going: Callable[[], bool]) -> None:
        for keys in self._policy.iter_idle_leases():
            if not keep_going():
                break
            began_at = monotonic()
            if keys:
                self._database.write(DeleteIdleLeases(keys))
            _pause(began_at)

    def _delete_approvals(self, keep_going: Callable[[], bool]) -> None:
        before_ms = self._policy.approvals_before_ms(self._now_ms())
        while before_ms is not None and keep_going():
            began_at = monotonic()
            if self._database.write(DeleteOldApprovals(before_ms)) == 0:
                break
            _pause(began_at)

    def _delete_keys(self, keep_going: Callable[[], bool]) -> int:
        count = 0
        for rows in (IdempotencyStore(self._database), KeptAnswers(self._database), LimitCounters(self._database)):
            while keep_going():
                began_at = monotonic()
                gone = rows.prune(self._now_ms())
                if gone == 0:
                    break
                count += 0 if isinstance(rows, LimitCounters) else gone
                _pause(began_at)
        return count

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _batches(found: Iterator[ExpiredSession]) -> Iterator[list[ExpiredSession]]:
    batch: list[ExpiredSession] = []
    entries = 0
    for session in found:
        if batch and (len(batch) == SESSIONS_PER_BATCH or entries + session.message_count > ENTRIES_PER_BATCH):
            yield batch
            batch, entries = [], 0
        batch.append(session)
        entries += session.message_count
    if batch:
        yield batch


def _pause(began_at: float) -> None:
    sleep(max(_MIN_PAUSE_SECONDS, _PAUSE_FACTOR * (monotonic() - began_at)))
