"""The run ledger: start runs in their sessions and record their outcome.

Opening a run waits for its session, first in this process and then in the database; closing it stores the outcome. A
stateless run has its own session: nothing is written before its end.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

from service.core.concurrency import sleep, spawn
from service.core.errors import GatewayError
from service.storage.cluster.membership import Membership
from service.storage.database.database import Database, Operation
from service.storage.database.errors import StoreError
from service.storage.database.notify import session_topic
from service.storage.runs.beginning import AcceptRun, AcquireFailure, BeginRun, Lease
from service.storage.runs.finishing import FinishRun
from service.storage.runs.queue import QueueEntry, SessionQueue, session_busy
from service.storage.runs.records import AcceptedRun, RunOutcome, RunRecord
from service.storage.runs.retraction import AbandonRun, RetractRun
from service.storage.sessions.tree import SessionHead

#: How long a free session is reserved for another gateway that waits for it.
_RESERVATION_SECONDS = 1.0

#: How long to wait for a notification before trying to acquire the session again.
_RETRY_SECONDS = 1.0

#: Retry interval for an outcome that could not be recorded.
_RECORD_RETRY_SECONDS = 2.0

_log = logging.getLogger("openclaw.storage")


class OpenRun:
    """A run that holds its session. Exactly one of `finish`, `abandon` and `retract` ends it."""

    def __init__(
        self, ledger: RunLedger, run: AcceptedRun, gateway_id: str, lease: Lease | None, entry: QueueEntry | None
    ) -> None:
        self.run = run
        #: The session when the run acquired it; that of a new one for a stateless run.
        self.head = SessionHead() if lease is None else lease.head
        self._ledger = ledger
        self._gateway_id = gateway_id
        self._fence = None if lease is None else lease.fence
        self._entry = entry
        self._is_over = False

    def finish(self, outcome: RunOutcome) -> float:
        """Store the outcome and the turn, release the session, and return after the commit.

        Returns the time of the end as it is stored, in seconds since 1970. Raises `StoreError`, and `GatewayError`
        (`session_lost`) if this gateway was evicted in the meantime. Nothing of the turn is stored then.
        """
        try:
            operation = self._to_operation(outcome)
            self._ledger.record_end(operation)
            return operation.at_ms / 1000
        finally:
            self._release()

    def abandon(self, error: GatewayError) -> None:
        """Store that the run failed with `error`, without an outcome, and release the session. Never raises.

        After the end a no-op.
        """
        if self._is_over:
            return
        try:
            if self._is_recorded:
                self._ledger.refuse(self.run, error)
        finally:
            self._release()

    def retract(self) -> None:
        """Undo the start of a run that has not done anything yet, and release the session. Never raises.

        The record of a detached run stays, and its lease: see `RunLedger.refuse`.
        """
        try:
            if self._is_recorded and not self.run.detached:
                self._ledger.forget(self.run, self._gateway_id)
        finally:
            self._release()

    def _to_operation(self, outcome: RunOutcome) -> FinishRun:
        now_ms = self._ledger.now_ms()
        session_id = self._ledger.new_id() if self.run.stateless else self.run.new_session_id
        notify_peers = self._ledger.has_peers
        return FinishRun(
            self.run, self._gateway_id, self._fence, self._is_recorded, outcome, now_ms, session_id, notify_peers
        )

    @property
    def _is_recorded(self) -> bool:
        return self._fence is not None or self.run.is_recorded_early

    def _release(self) -> None:
        self._is_over = True
        self._ledger.discard(self.run)
        if self._entry is not None:
            self._entry.release()


class RunLedger:
    """Starts runs and records their outcome. `clock` returns seconds since 1970, `new_id` unique ids."""

    def __init__(
        self,
        database: Database,
        membership: Membership,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.new_id = new_id
        self._database = database
        self._membership = membership
        self._queue = SessionQueue()
        self._clock = clock
        self._closed = False
        self._known: set[str] = set()
        self._unstored: deque[Operation[None]] = deque()

    def now_ms(self) -> int:
        """Current time in ms since the epoch."""
        return int(self._clock() * 1000)

    @property
    def has_peers(self) -> bool:
        """True if other gateways may be waiting for a session."""
        return self._membership.has_peers

    def open(self, run: AcceptedRun, timeout_seconds: float | None) -> OpenRun:
        """Wait for the run's session and acquire it.

        Raises `StoreError`, and `GatewayError` (`session_busy`) after `timeout_seconds`. An exception thrown into the
        waiting greenlet leaves the queue.
        """
        self._known.add(run.id)
        if run.stateless:
            self._database.check_present()  # before the work, since nothing is written until its end
            return OpenRun(self, run, self._membership.id, None, None)
        give_up_at = None if timeout_seconds is None else monotonic() + timeout_seconds
        entry = self._queue.join(run.session_key)  # before any wait, so that runs keep their order of arrival
        try:
            if not entry.is_first:
                self._database.write(AcceptRun(run, self._membership.id))
            entry.wait(timeout_seconds)
            return self._acquire(run, entry, timeout_seconds, give_up_at)
        except BaseException:
            # A pending write is committed even if its caller was interrupted; this one is queued after it.
            if not run.detached:
                spawn(self.forget, run, self._membership.id)
            self._known.discard(run.id)
            entry.release()
            raise

    def _acquire(
        self, run: AcceptedRun, entry: QueueEntry, timeout_seconds: float | None, give_up_at: float | None
    ) -> OpenRun:
        began_at = monotonic()
        while True:
            gateway_id = self._membership.id
            override_waiter = monotonic() - began_at > _RESERVATION_SECONDS
            answer = self._database.write(BeginRun(run, gateway_id, self.now_ms(), override_waiter))
            if isinstance(answer, Lease):
                return OpenRun(self, run, gateway_id, answer, entry)
            if answer is AcquireFailure.EVICTED:
                self._membership.rejoin(gateway_id)
                continue
            if answer is AcquireFailure.OVER:
                raise _session_lost()
            left = _RETRY_SECONDS if give_up_at is None else min(_RETRY_SECONDS, give_up_at - monotonic())
            if left <= 0:
                raise session_busy(timeout_seconds)
            self._database.wait_for_change(session_topic(run.session_key), left)

    def record_end(self, operation: FinishRun) -> None:
        """Store a run's outcome. Raises like `OpenRun.finish`."""
        try:
            stored = self._database.write(operation)
        except StoreError:
            if operation.recorded:
                lost = GatewayError("storage_unavailable", "The outcome of the run could not be stored.")
                self._store_later(AbandonRun(operation.run, self.now_ms(), lost, lost=operation))
            raise
        if not stored:
            raise _session_lost()

    def accept(self, run: AcceptedRun) -> None:
        """Record a run before anything else is done for it. Raises `StoreError`."""
        self._database.write(AcceptRun(run, self._membership.id))

    def refuse(self, run: AcceptedRun, error: GatewayError) -> None:
        """Record that a run ended without an outcome, retrying in the background if necessary. Never raises."""
        refused = AbandonRun(run, self.now_ms(), error, self._membership.id)
        self._store_now_or_later(refused, f"the end of run {run.id} could not be recorded yet")

    def forget(self, run: AcceptedRun, gateway_id: str) -> None:
        """Delete the record of a run, retrying in the background if necessary. Never raises."""
        self._store_now_or_later(RetractRun(run, gateway_id), f"run {run.id} could not be retracted yet")

    def end_forgotten(self, record: RunRecord) -> bool:
        """Close the record of a run of this gateway that is not being executed; returns whether it was one.

        Raises `StoreError`.
        """
        own = record.gateway_id == self._membership.id and record.id not in self._known
        if not own or record.state.is_final:
            return False
        self._database.write(AbandonRun(record, self.now_ms(), GatewayError("run_aborted", "The run was aborted.")))
        return True

    def discard(self, run: AcceptedRun) -> None:
        """Drop a run that has ended."""
        self._known.discard(run.id)

    def close(self) -> None:
        """Stop retrying in the background."""
        self._closed = True

    def _store_now_or_later(self, operation: Operation[None], failed: str) -> None:
        """Store a write that has to happen before others can acquire the session; `failed` is for the log."""
        if self._unstored:  # the database cannot be used: one write at a time finds out when it can
            self._unstored.append(operation)
            return
        try:
            self._database.write(operation)
        except StoreError as error:
            _log.warning("%s: %s", failed, error)
            self._store_later(operation)

    def _store_later(self, operation: Operation[None]) -> None:
        self._unstored.append(operation)
        if len(self._unstored) == 1:
            spawn(self._store_unstored)

    def _store_unstored(self) -> None:
        while self._unstored and not self._closed:
            try:
                self._database.write(self._unstored[0])
            except StoreError:
                self._unstored.rotate(-1)  # one that cannot be stored must not keep the others
                sleep(_RECORD_RETRY_SECONDS)
            else:
                self._unstored.popleft()


def _session_lost() -> GatewayError:
    text = "This process lost its lease on the session while the run was active; the turn was not stored. Retry."
    return GatewayError("session_lost", text)
