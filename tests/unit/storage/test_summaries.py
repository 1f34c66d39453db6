"""Session summaries: the resulting conversation, and the complete transcript."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.old_databases import connect
from support.transcripts import Transcripts

from service.core.messages import Message, Role, Usage, text_message
from service.storage.database.database import Database
from service.storage.database.errors import StoreError
from service.storage.database.schema import summaries

KEY = "agent:main:nguyễn"


@pytest.fixture
def store(database: Database) -> Iterator[Transcripts]:
    with closing(Transcripts(database, clock=lambda: 1_700_000_000, new_id=map(str, count(1)).__next__)) as store:
        yield store


def append(store: Transcripts, *said: str) -> None:
    messages = tuple(text_message(Role.USER, text) for text in said)
    store.append_turn(KEY, "main", store.storage.ledger.new_id(), messages, usage=Usage(), model="m")


def summarise(store: Transcripts, text: str, *, kept: int, run_id: str | None = None) -> None:
    store.append_summary(KEY, run_id or store.storage.ledger.new_id(), text_message(Role.USER, text), kept=kept)


def texts(store: Transcripts) -> list[str]:
    return [message.text for message in store.load_conversation(KEY)]


def test_summary_replaces_all_but_last_messages(store: Transcripts) -> None:
    append(store, "1", "2", "3", "4")
    summarise(store, "one to three", kept=1)
    assert texts(store) == ["one to three", "4"]
    append(store, "5")
    assert texts(store) == ["one to three", "4", "5"]


def test_summary_that_covers_most_counts(store: Transcripts) -> None:
    append(store, "1", "2", "3", "4")
    summarise(store, "one and two", kept=2)
    append(store, "5")
    summarise(store, "one to five", kept=0)
    assert texts(store) == ["one to five"]


def test_summary_of_same_messages_replaces_earlier_one(store: Transcripts) -> None:
    append(store, "1", "2")
    summarise(store, "first try", kept=1)
    summarise(store, "second try", kept=1)
    assert texts(store) == ["second try", "2"]


def test_transcript_keeps_what_summary_covers(store: Transcripts) -> None:
    append(store, "1", "2", "3")
    summarise(store, "all", kept=0, run_id="run")
    assert [entry.message.text for entry in store.iter_entries(KEY)] == ["1", "2", "3"]
    rows = store.database.fetch(sa.select(summaries.c.covers, summaries.c.role, summaries.c.run_id), {})
    assert [tuple(row) for row in rows] == [(3, "user", "run")]


def test_delete_leaves_other_sessions_unchanged(store: Transcripts) -> None:
    append(store, "1", "2")
    other = text_message(Role.USER, "elsewhere")
    store.append_turn("other", "main", "run", (other,), usage=Usage(), model="m")
    summarise(store, "both", kept=0)
    assert store.load_conversation("other") == (other,)


@pytest.mark.parametrize("kept", [2, 3, -1])
def test_summary_that_covers_nothing_is_refused(store: Transcripts, kept: int) -> None:
    append(store, "1", "2")
    with pytest.raises(StoreError, match="at least one"):
        summarise(store, "nothing", kept=kept)
    assert texts(store) == ["1", "2"]


def test_session_without_turns_cannot_be_summarized(store: Transcripts) -> None:
    with pytest.raises(StoreError, match="at least one"):
        summarise(store, "nothing", kept=0)


def test_database_error_contains_no_message_text(store: Transcripts, database_url: str | None, tmp_path: Path) -> None:
    append(store, "1", "2")
    with closing(connect(database_url, tmp_path).connect()) as connection, connection.begin():
        connection.exec_driver_sql("ALTER TABLE summaries RENAME TO elsewhere")
    with pytest.raises(StoreError, match=r"no such table|does not exist") as caught:
        summarise(store, "a secret", kept=0)
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"


def test_summary_can_hold_more_than_text(store: Transcripts) -> None:
    append(store, "1")
    summary = Message(Role.USER, text_message(Role.USER, "a").parts * 2, name="n")
    store.append_summary(KEY, "run", summary, kept=0)
    assert store.load_conversation(KEY) == (summary,)
