"""A transcript store filled turn by turn, with the operations that runs use."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from service.core.messages import Message, Usage
from service.storage.database.database import Database
from service.storage.database.open import open_file
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.sessions.transcripts import TranscriptStore
from service.storage.storage import Storage


def new_uuid() -> str:
    return str(uuid.uuid4())


class Transcripts(TranscriptStore):
    """Transcripts that own their database and close it."""

    def __init__(
        self, database: Database, clock: Callable[[], float] = time.time, new_id: Callable[[], str] = new_uuid
    ) -> None:
        super().__init__(database)
        self.database = database
        self.clock = clock
        self.storage = Storage(database, clock=clock, new_id=new_id)
        self.storage.membership.join()

    @classmethod
    def open(
        cls, path: Path, clock: Callable[[], float] = time.time, new_id: Callable[[], str] = new_uuid
    ) -> Transcripts:
        return cls(open_file(path), clock, new_id)

    def append_turn(
        self, key: str, agent_id: str, run_id: str, messages: Sequence[Message], *, usage: Usage, model: str
    ) -> None:
        """Store one turn of a run."""
        self.finish_run(key, agent_id, run_id, RunOutcome(RunState.OK, usage, model, "stop", messages=tuple(messages)))

    def append_summary(self, key: str, run_id: str, summary: Message, *, kept: int) -> None:
        """Replace all but the last `kept` messages of a session with a summary."""
        self.finish_run(key, "main", run_id, RunOutcome(RunState.OK, summary=summary, kept=kept))

    def finish_run(self, key: str, agent_id: str, run_id: str, outcome: RunOutcome) -> None:
        """Open a run of the session and finish it with `outcome`."""
        run = AcceptedRun(run_id, key, agent_id, Protocol.HTTP, self.storage.ledger.now_ms(), stateless=False)
        self.storage.ledger.open(run, None).finish(outcome)

    def check(self) -> None:
        self.database.check()

    def close(self) -> None:
        self.storage.close()
