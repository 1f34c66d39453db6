"""What is not kept for ever, and how it goes: sessions, what is recorded of runs, idempotency keys.

It goes in small steps, a few sessions in one transaction, each followed by a pause in which others can write. A session
that a run holds, or that was used since it was found too old, stays. Any number of gateways, and the command line, may
do this on one database at the same time.
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
from service.storage.runs.idempotency import Claims
from service.storage.sessions.retention import DeleteExpired, DeleteIdleLanes, DeleteOldRuns, ExpiredSession, Expiry

#: When a gateway looks for the first time after its start, and how often after that.
FIRST_SECONDS = 3.0
INTERVAL_SECONDS = 600.0

#: What one transaction deletes at most; a longer session alone.
SESSIONS_AT_ONCE = 16
ENTRIES_AT_ONCE = 2_000

#: After each transaction others have this many times as long, and at least so long.
_PAUSE_FACTOR = 3.0
_SHORTEST_PAUSE_SECONDS = 0.01

_log = logging.getLogger("openclaw.sessions")


@record
class Deleted:
    """How many of each are gone."""

    sessions: int = 0
    runs: int = 0
    idempotency_keys: int = 0


class Maintenance:
    """Deletes what `config` does not keep. `clock` gives seconds since 1970."""

    def __init__(self, database: Database, config: MaintenanceConfig, clock: Callable[[], float]) -> None:
        self._database = database
        self._config = config
        self._clock = clock
        self._expiry = Expiry(database, config)
        self._stopped = Event()
        self._stopped.set()

    def start(self, first_seconds: float = FIRST_SECONDS, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Look now and then, in the background, until `stop`."""
        self._stopped.clear()
        spawn(self._look_now_and_then, first_seconds, interval_seconds)

    def stop(self) -> None:
        """Begin no further step. Twice, and before `start`, a no-op."""
        self._stopped.set()

    def iter_expired(self) -> Iterator[ExpiredSession]:
        """The sessions that would be deleted now, unless a run holds them. Raises `StoreError`."""
        return self._expiry.iter_sessions(self._now_ms())

    def run(self, go_on: Callable[[], bool] = lambda: True) -> Deleted:
        """Delete all that is not kept, as long as `go_on()`; what is gone. Raises `StoreError`."""
        sessions = sum(self._delete_sessions(step) for step in _steps(self.iter_expired()) if go_on())
        self._delete_lanes(go_on)
        return Deleted(sessions, self._delete_runs(go_on), self._delete_keys(go_on))

    def _look_now_and_then(self, first_seconds: float, interval_seconds: float) -> None:
        self._stopped.wait(first_seconds)
        while not self._stopped.is_set():
            try:
                self._look()
            except StoreError as error:
                if not self._stopped.is_set():
                    _log.warning("what is not kept could not be deleted: %s", error)
            self._stopped.wait(interval_seconds)

    def _look(self) -> None:
        if self._config.mode == "warn":
            count = sum(1 for _ in self.iter_expired())
            if count:
                _log.warning('%d sessions would be deleted if session.maintenance.mode were "enforce"', count)
            self._delete_keys(self._goes_on)
            return
        deleted = self.run(self._goes_on)
        if deleted.sessions or deleted.runs:
            _log.info("deleted what is not kept: %d sessions, %d records of runs", deleted.sessions, deleted.runs)

    def _goes_on(self) -> bool:
        return not self._stopped.is_set()

    def _delete_sessions(self, step: Sequence[ExpiredSession]) -> int:
        began_at = monotonic()
        count = self._database.write(DeleteExpired(step))
        _pause(began_at)
        return count

    def _delete_runs(self, go_on: Callable[[], bool]) -> int:
        count = 0
        for run_ids in self._expiry.iter_runs(self._now_ms()):
            if not go_on():
                break
            began_at = monotonic()
            if run_ids:
                count += self._database.write(DeleteOldRuns(run_ids))
            _pause(began_at)
        return count

    def _delete_lanes(self, go_on: Callable[[], bool]) -> None:
        for keys in self._expiry.iter_lanes():
            if not go_on():
                break
            began_at = monotonic()
            if keys:
                self._database.write(DeleteIdleLanes(keys))
            _pause(began_at)

    def _delete_keys(self, go_on: Callable[[], bool]) -> int:
        count, claims = 0, Claims(self._database)
        while go_on():
            began_at = monotonic()
            gone = claims.prune(self._now_ms())
            if gone == 0:
                break
            count += gone
            _pause(began_at)
        return count

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _steps(found: Iterator[ExpiredSession]) -> Iterator[list[ExpiredSession]]:
    step: list[ExpiredSession] = []
    entries = 0
    for session in found:
        if step and (len(step) == SESSIONS_AT_ONCE or entries + session.message_count > ENTRIES_AT_ONCE):
            yield step
            step, entries = [], 0
        step.append(session)
        entries += session.message_count
    if step:
        yield step


def _pause(began_at: float) -> None:
    sleep(max(_SHORTEST_PAUSE_SECONDS, _PAUSE_FACTOR * (monotonic() - began_at)))
