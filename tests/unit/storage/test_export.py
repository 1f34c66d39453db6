"""Exports of sessions that change meanwhile, and what an import keeps of their messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from support.transcripts import Transcripts, copy_session, parse_lines

from service.core.messages import Message, Role, Text, ToolCall, Usage, text_message
from service.storage.database.database import Database
from service.storage.runs.records import RunOutcome, RunState
from service.storage.sessions.export import export_session

KEY = "agent:main:exported"


@pytest.fixture
def store(database: Database) -> Iterator[Transcripts]:
    with closing(Transcripts(database)) as opened:
        yield opened


def append(store: Transcripts, *said: str, parent: int | None = None) -> None:
    messages = tuple(text_message(Role.USER, text) for text in said)
    outcome = RunOutcome(RunState.OK, Usage(), "m", "stop", messages=messages, parent=parent)
    store.finish_run(KEY, "main", store.storage.ledger.new_id(), outcome)


def begin_export(store: Transcripts) -> Iterator[dict[str, Any]]:
    session = store.get_session(KEY)
    assert session is not None
    return export_session(store, session, {})


def test_session_in_use_is_exported_as_it_was_at_the_start(store: Transcripts) -> None:
    append(store, "1", "2", "3")
    lines = begin_export(store)
    begun = [next(lines)]
    append(store, "two", "three", parent=0)
    store.append_summary(KEY, "summary", text_message(Role.USER, "short"), kept=1)
    [session] = parse_lines([*begun, *lines])
    assert [(one.message.text, one.parent) for one in session.messages] == [("1", -1), ("2", 0), ("3", 1)]
    assert session.summaries == []


def test_session_that_grows_before_its_turn_is_exported_whole(store: Transcripts) -> None:
    append(store, "1", "2")
    lines = begin_export(store)
    append(store, "3")
    first = next(lines)
    assert first["message_count"] == len([*lines]) == 3


def test_session_deleted_since_it_was_listed_does_not_spoil_the_export(store: Transcripts) -> None:
    append(store, "1", "2")
    lines = begin_export(store)
    store.delete_session(KEY)
    assert [*lines] == []


def test_import_keeps_that_an_answer_was_cut_off_and_a_tool_failed(store: Transcripts) -> None:
    said = (
        text_message(Role.USER, "hi"),
        Message(Role.ASSISTANT, tool_calls=(ToolCall("c", "f", "{}"),)),
        Message(Role.TOOL, (Text("no such file"),), tool_call_id="c", failed=True),
        Message(Role.ASSISTANT, (Text("It seem"),), cut_off="the caller left"),
    )
    store.append_turn(KEY, "main", "run", said, usage=Usage(), model="m")
    copy_session(store, KEY, store)
    kept = store.load_conversation(KEY)
    assert [(one.cut_off, one.failed) for one in kept] == [(one.cut_off, one.failed) for one in said]
