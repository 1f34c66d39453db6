"""The book of runs: who may run in a session, and what became of each run.

A run is opened, which waits until its session is free in this process and then in the database, and closed with its
outcome. A stateless run has its session to itself: nothing is written before its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from service.core.concurrency import sleep, spawn
from service.core.errors import GatewayError
from service.storage.cluster.membership import Membership
from service.storage.database.database import Database, Operation
from service.storage.database.errors import StoreError
from service.storage.database.notify import lane_topic
from service.storage.runs.operations import AcceptRun, BeginRun, FinishRun, Refusal
from service.storage.runs.queue import Lane, Lanes, session_busy
from service.storage.runs.records import NewRun, RunOutcome, RunRecord
from service.storage.runs.retraction import AbandonRun, RetractRun

#: How long a session is left to another gateway that waits for it and does not come.
_PATIENCE_SECONDS = 1.0

#: How long is waited for word that a session is free before it is tried again.
_RETRY_SECONDS = 1.0

#: How often an end that could not be recorded is tried again.
_SETTLE_SECONDS = 2.0

_log = logging.getLogger("openclaw.sessions")


class OpenRun:
    """A run that has its session. Exactly one of `finish` and `retract` ends it."""

    def __init__(self, ledger: RunLedger, run: NewRun, gateway_id: str, fence: int | None, lane: Lane | None) -> None:
        self.run = run
        self._ledger = ledger
        self._gateway_id = gateway_id
        self._fence = fence
        self._lane = lane

    def finish(self, outcome: RunOutcome) -> None:
        """Record the end, with what it adds to its session, and free the session; return once it is committed.

        Raises `StoreError`, and `GatewayError` (`session_lost`) if others took this gateway for dead meanwhile. Nothing
        of the turn is stored then.
        """
        try:
            self._ledger.record_end(self._to_operation(outcome))
        finally:
            self._release()

    def retract(self) -> None:
        """Forget the run, which has not done anything yet, and free the session. Never raises."""
        try:
            if self._fence is not None or self.run.claimed:
                self._ledger.forget(self.run, self._gateway_id)
        finally:
            self._release()

    def _to_operation(self, outcome: RunOutcome) -> FinishRun:
        recorded = self._fence is not None or self.run.claimed
        now_ms, session_id = self._ledger.now_ms(), self._ledger.new_id()
        tells = self._ledger.has_others
        return FinishRun(self.run, self._gateway_id, self._fence, recorded, outcome, now_ms, session_id, tells)

    def _release(self) -> None:
        self._ledger.let_go(self.run)
        if self._lane is not None:
            self._lane.release()


class RunLedger:
    """Opens runs and keeps the book. `clock` gives seconds since 1970, `new_id` ids that nobody has."""

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
        self._lanes = Lanes()
        self._clock = clock
        self._closed = False
        self._known: set[str] = set()

    def now_ms(self) -> int:
        """The time in ms since the epoch."""
        return int(self._clock() * 1000)

    @property
    def has_others(self) -> bool:
        """Whether other gateways may wait for a session."""
        return self._membership.has_others

    def open(self, run: NewRun, timeout_seconds: float | None) -> OpenRun:
        """Wait until the run's session is free and take it.

        Raises `StoreError`, and `GatewayError` (`session_busy`) after `timeout_seconds`. An exception thrown into the
        waiting greenlet gives the place up.
        """
        self._known.add(run.id)
        if run.stateless:
            return OpenRun(self, run, self._membership.id, None, None)
        give_up_at = None if timeout_seconds is None else monotonic() + timeout_seconds
        lane = self._lanes.queue_up(run.session_key)  # before anything is waited for: who comes first runs first
        try:
            if not lane.is_first:
                self._database.write(AcceptRun(run, self._membership.id))
            lane.wait(timeout_seconds)
            return self._take(run, lane, timeout_seconds, give_up_at)
        except BaseException:
            # What was written is carried out even if nobody waits for it any more: this comes behind it.
            spawn(self.forget, run, self._membership.id)
            self._known.discard(run.id)
            lane.release()
            raise

    def _take(self, run: NewRun, lane: Lane, timeout_seconds: float | None, give_up_at: float | None) -> OpenRun:
        began_at = monotonic()
        while True:
            gateway_id = self._membership.id
            impatient = monotonic() - began_at > _PATIENCE_SECONDS
            answer = self._database.write(BeginRun(run, gateway_id, self.now_ms(), impatient))
            if not isinstance(answer, Refusal):
                return OpenRun(self, run, gateway_id, answer, lane)
            if answer is Refusal.EXPELLED:
                self._membership.rejoin(gateway_id)
                continue
            if answer is Refusal.OVER:
                raise _session_lost()
            left = _RETRY_SECONDS if give_up_at is None else min(_RETRY_SECONDS, give_up_at - monotonic())
            if left <= 0:
                raise session_busy(timeout_seconds)
            self._database.wait_change(lane_topic(run.session_key), left)

    def record_end(self, operation: FinishRun) -> None:
        """Write a run's end. Raises as `OpenRun.finish` does."""
        try:
            stored = self._database.write(operation)
        except StoreError:
            if operation.recorded:
                lost = GatewayError("storage_unavailable", "The end of the run could not be stored.")
                spawn(self._write_surely, AbandonRun(operation.run, self.now_ms(), lost))
            raise
        if not stored:
            raise _session_lost()

    def forget(self, run: NewRun, gateway_id: str) -> None:
        """Undo what was recorded of a run, later if it is not possible now. Never raises."""
        retract = RetractRun(run, gateway_id)
        try:
            self._database.write(retract)
        except StoreError as error:
            _log.warning("run %s could not be taken back yet: %s", run.id, error)
            spawn(self._write_surely, retract)

    def end_forgotten(self, record: RunRecord) -> bool:
        """End the record of a run of this gateway that nobody here executes; whether it is one. Raises `StoreError`."""
        own = record.gateway_id == self._membership.id and record.id not in self._known
        if not own or record.state.is_final:
            return False
        self._database.write(AbandonRun(record, self.now_ms(), GatewayError("run_aborted", "The run was aborted.")))
        return True

    def let_go(self, run: NewRun) -> None:
        """The run is over here, for `OpenRun`."""
        self._known.discard(run.id)

    def close(self) -> None:
        """Try nothing again from now on."""
        self._closed = True

    def _write_surely(self, operation: Operation[None]) -> None:
        """Write what has to be written before others can have the session, as soon as it is possible."""
        while not self._closed:
            try:
                self._database.write(operation)
            except StoreError:
                sleep(_SETTLE_SECONDS)
            else:
                return


def _session_lost() -> GatewayError:
    text = (
        "This gateway was thought dead while the run went on, and its session was given to others: nothing of "
        "this turn is stored. Try again."
    )
    return GatewayError("session_lost", text)
