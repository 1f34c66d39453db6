"""A transcript store filled turn by turn, with the operations that runs use."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.core.messages import Message, Usage
from service.storage.database.database import Database
from service.storage.database.open import open_file
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.sessions.export import export_session
from service.storage.sessions.importing import ImportedSession, ImportSessions
from service.storage.sessions.session_files import parse_export, read_lines
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


def parse_lines(lines: Iterable[Mapping[str, Any]]) -> list[ImportedSession]:
    """Read an export as an import does."""
    return parse_export(read_lines(json.dumps(line).encode() for line in lines))


def copy_session(source: Transcripts, key: str, target: Transcripts) -> None:
    """Export a session from one store and import it into the other, in place of what has its key there."""
    session = source.get_session(key)
    assert session is not None
    found = parse_lines(export_session(source, session, source.storage.records.list_failures(key)))
    target.database.write(ImportSessions(found, replaces=True, new_id=uuid.uuid4))
