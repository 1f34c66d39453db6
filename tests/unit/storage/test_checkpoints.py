"""Checkpoints of SQLite's write-ahead log: it stays short under any load, and no write is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

from support.transcripts import Transcripts

from service.core.concurrency import run_concurrently
from service.core.messages import Role, Usage, text_message
from service.storage.database.checkpoints import LIMIT_BYTES
from service.storage.database.open import FILE_NAME, open_database

TURN_BYTES = 64 * 1024
WRITERS = 4
#: All writers together write several times the log's limit.
TURNS = 12 * LIMIT_BYTES // TURN_BYTES // WRITERS


def log_of(state_dir: Path) -> Path:
    return state_dir / f"{FILE_NAME}-wal"


def write(store: Transcripts, log: Path, session: str) -> int:
    """Append large turns without a pause; return the maximum size of the log."""
    longest = 0
    for number in range(TURNS):
        said = text_message(Role.USER, str(number) + "x" * TURN_BYTES)
        store.append_turn(session, "main", f"{session} {number}", [said], usage=Usage(), model="m")
        longest = max(longest, log.stat().st_size)
    return longest


def test_log_stays_short_under_constant_writes(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    with closing(Transcripts(open_database(None, tmp_path))) as store:
        jobs = [partial(write, store, log, f"agent:main:{number}") for number in range(WRITERS)]
        assert max(run_concurrently(jobs, WRITERS)) < 8 * LIMIT_BYTES
        for number in range(WRITERS):
            assert len(store.load_conversation(f"agent:main:{number}")) == TURNS
    assert not log.exists()


def test_many_small_turns_are_checkpointed_before_close(tmp_path: Path) -> None:
    said = text_message(Role.USER, "hi")
    with closing(Transcripts(open_database(None, tmp_path))) as store:
        for number in range(1_000):
            store.append_turn(f"agent:main:{number}", "main", str(number), [said], usage=Usage(), model="m")
        with closing(sqlite3.connect(f"file:{tmp_path / FILE_NAME}?mode=ro&immutable=1", uri=True)) as file_alone:
            copied = file_alone.execute("SELECT count(*) FROM entries").fetchone()[0]
        assert copied >= 500
        store.append_turn("agent:main:0", "main", "last", [said], usage=Usage(), model="m")
        assert store.load_conversation("agent:main:0") == (said, said)
