"""Replay of a run that an earlier request with the same idempotency key started.

Its readers see a run like any other, whether the original runs here, runs in another process or has ended.
"""

from __future__ import annotations

import logging

from service.agent.event_log import fold_reasoning
from service.agent.events import ReasoningDelta, RunEnded
from service.agent.output_events import reply_events
from service.agent.run import Run
from service.core.byte_budget import ByteBudget
from service.core.concurrency import Cancelled, sleep, spawn
from service.core.errors import GatewayError, internal_error
from service.core.messages import Sampling, StopReason
from service.gateway.run_outcome import failure_of
from service.storage.runs.events import RunEvents
from service.storage.runs.records import AcceptedRun, RunRecord, RunRecords, RunState
from service.storage.sessions.transcripts import TranscriptStore

logger = logging.getLogger("openclaw.gateway")

#: Interval between reads of the record of another process's run.
POLL_SECONDS = 0.1


class Replayer:
    """Replays the runs of `records`, with their `events` and their messages in `store`.

    Their output counts in `budget`.
    """

    def __init__(
        self, records: RunRecords, events: RunEvents, store: TranscriptStore, budget: ByteBudget | None = None
    ) -> None:
        self._records = records
        self._events = events
        self._store = store
        self._budget = budget

    def mirror(self, original: Run) -> Run:
        """A replay of a run of this process, event by event."""
        copy = Run(original.accepted, is_replay=True, shows_reasoning=original.shows_reasoning, budget=self._budget)
        copy.sampling = original.sampling
        copy.begin()
        spawn(self._mirror, original, copy)
        return copy

    def _mirror(self, original: Run, copy: Run) -> None:
        try:
            with copy.scope:
                for batch in original.follow():
                    copy.ended_at = original.ended_at
                    for event in batch:
                        copy.append(event)
        except Cancelled:
            copy.append(RunEnded(error=_left()))

    def recall(self, record: RunRecord, sampling: Sampling = Run.sampling) -> Run:
        """A replay of a recorded run, which ends once the recorded one has; `sampling` is not recorded."""
        accepted = AcceptedRun(
            record.id,
            record.session_key,
            record.agent_id,
            record.protocol,
            record.accepted_at_ms,
            stateless=False,
            response=record.response,
        )
        copy = Run(accepted, is_replay=True, budget=self._budget)
        copy.sampling = sampling
        self.replay_as(copy)
        return copy

    def replay_as(self, copy: Run) -> None:
        """Make `copy` the replay of the recorded run with its id. Does not wait."""
        copy.is_replay = copy.shows_reasoning = True
        copy.begin()
        spawn(self._replay_to, copy)

    def _replay_to(self, copy: Run) -> None:
        try:
            self._replay(copy)
        except GatewayError as error:
            copy.append(RunEnded(error=error))
        except Exception:
            # A defect must not leave readers waiting: it is logged here and reported as an internal error.
            logger.exception("run %s could not be replayed", copy.id)
            copy.append(RunEnded(error=internal_error()))

    def _replay(self, copy: Run) -> None:
        try:
            with copy.scope:
                record = self._records.get(copy.id)
                while record is not None and not record.state.is_final:
                    sleep(POLL_SECONDS)
                    record = self._records.get(copy.id)
        except Cancelled:
            copy.append(RunEnded(error=_left()))
            return
        if record is None or record.state is not RunState.OK:
            copy.append(RunEnded(error=failure_of(record)))
            return
        copy.ended_at = None if record.ended_at_ms is None else record.ended_at_ms / 1000
        reply = self._store.load_reply(record.session_key, record.id, record.reply_count)
        if len(reply) != record.reply_count:  # deleted since
            copy.append(RunEnded(error=failure_of(None)))
            return
        if reasoning := self._load_reasoning(record.id):
            copy.append(ReasoningDelta(reasoning))
        for event in reply_events(reply):
            copy.append(event)
        copy.append(RunEnded(StopReason(record.stop_reason or StopReason.STOP), record.usage))

    def _load_reasoning(self, run_id: str) -> str:
        reasoning, after = "", 0
        while events := self._events.read_after(run_id, after):
            after = events[-1].number
            reasoning = fold_reasoning(reasoning, events)
        return reasoning


def _left() -> GatewayError:
    return GatewayError("run_aborted", "The caller left.")
