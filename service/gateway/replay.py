"""Answers given again: a run that was started by an earlier request with the same idempotency key.

Whether it still goes on here, goes on in another gateway or has ended, its readers see a run like any other.
"""

from __future__ import annotations

import logging

from service.agent.conversation import unanswered_calls
from service.agent.events import RunEnded, TextDelta, ToolCallRequested
from service.agent.loop import PARAGRAPH
from service.agent.run import Run
from service.core.concurrency import Cancelled, sleep, spawn
from service.core.errors import GatewayError, internal_error
from service.core.messages import Role, StopReason
from service.gateway.run_outcome import failure_of
from service.storage.runs.records import RunRecord, RunRecords, RunState
from service.storage.sessions.transcripts import SessionStore

logger = logging.getLogger("openclaw.gateway")

#: How often a run of another gateway is looked at.
LOOK_SECONDS = 0.1


class Replayer:
    """Gives the runs of `records` again, with what `store` has of them."""

    def __init__(self, records: RunRecords, store: SessionStore) -> None:
        self._records = records
        self._store = store

    def mirror(self, original: Run, copy: Run) -> None:
        """Let the readers of `copy` see what those of `original` see; ends with it, or when `copy` is aborted."""
        try:
            with copy.scope:
                for batch in original.follow():
                    for event in batch:
                        copy.append(event)
        except Cancelled:
            copy.append(RunEnded(error=_left()))

    def recall(self, record: RunRecord) -> Run:
        """The recorded run as one of its own, whose readers see the end once it has come."""
        copy = Run(record.id, record.session_key, record.agent_id, record.accepted_at_ms / 1000)
        spawn(self.replay, record.id, copy)
        return copy

    def replay(self, run_id: str, copy: Run) -> None:
        """Let the readers of `copy` see the end of the recorded run `run_id`, once it has come. Never raises."""
        try:
            self._replay(run_id, copy)
        except GatewayError as error:
            copy.append(RunEnded(error=error))
        except Exception:
            # A defect must not leave readers waiting: it is logged here and told as itself.
            logger.exception("run %s could not be told again", run_id)
            copy.append(RunEnded(error=internal_error()))

    def _replay(self, run_id: str, copy: Run) -> None:
        try:
            with copy.scope:
                record = self._records.get(run_id)
                while record is not None and not record.state.is_final:
                    sleep(LOOK_SECONDS)
                    record = self._records.get(run_id)
        except Cancelled:
            copy.append(RunEnded(error=_left()))
            return
        if record is None or record.state is not RunState.OK:
            copy.append(RunEnded(error=failure_of(record)))
            return
        reply = self._store.load_reply(record.session_key, record.id, record.reply_count)
        if len(reply) != record.reply_count:  # deleted since
            copy.append(RunEnded(error=failure_of(None)))
            return
        text = PARAGRAPH.join(message.text for message in reply if message.role is Role.ASSISTANT and message.text)
        if text:
            copy.append(TextDelta(text))
        for index, call in enumerate(unanswered_calls(reply)):
            copy.append(ToolCallRequested(index, call))
        copy.append(RunEnded(StopReason(record.stop_reason or StopReason.STOP), record.usage))


def _left() -> GatewayError:
    return GatewayError("run_aborted", "The caller left.")
