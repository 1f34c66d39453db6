"""Turns of stateless requests, stored as one row, on each database."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from support.transcripts import Transcripts

from service.core.messages import Image, Message, Role, Text, ToolCall, Usage, text_message
from service.storage.database.database import SingleOperation
from service.storage.database.schema import stateless_turns
from service.storage.runs.finishing import FinishRun
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.sessions.queries import MAX_PAYLOAD_CHARACTERS, Position

KEY = "agent:main:openai:alone"
MESSAGES = (
    Message(Role.USER, (Text("hello"), Image("https://example.org/a.png", "auto")), name="Bob"),
    Message(Role.ASSISTANT, tool_calls=(ToolCall("call", "look", "{}"),)),
    Message(Role.TOOL, (Text("x" * (MAX_PAYLOAD_CHARACTERS + 1)),), tool_call_id="call"),
    text_message(Role.ASSISTANT, "là 1"),
)
ANSWERED = RunOutcome(RunState.OK, Usage(7, 5, 3), "m/a", "stop", messages=MESSAGES, reply_count=3)


class Move(SingleOperation[None]):
    """Give the only turn to the session `KEY`."""

    def apply(self, connection: sa.Connection) -> None:
        connection.execute(stateless_turns.update().values(session_key=KEY))


def new_run(run_id: str = "r", key: str = KEY, *, stateless: bool = True) -> AcceptedRun:
    return AcceptedRun(run_id, key, "main", Protocol.HTTP, 1_000, stateless=stateless)


def answer(store: Transcripts, run: AcceptedRun, outcome: RunOutcome = ANSWERED) -> None:
    store.storage.ledger.open(run, None).finish(outcome)


def said(text: str) -> RunOutcome:
    return replace(ANSWERED, messages=(text_message(Role.USER, text),), reply_count=1)


def rows(store: Transcripts) -> int:
    found = sa.select(sa.func.count().label("n")).select_from(stateless_turns)
    count: int = store.database.fetch(found, {})[0].n
    return count


def texts(store: Transcripts, key: str = KEY) -> list[str]:
    return [message.text for message in store.load_conversation(key)]


def views(store: Transcripts) -> list[object]:
    """Everything that can be read about the session and its run."""
    session = store.get_session(KEY)
    assert session is not None
    older = Position(session.created_at_ms, session.session_id + "~")
    newer = Position(session.created_at_ms, session.session_id)
    return [
        session,
        store.list_sessions(None, 10),
        store.list_sessions("main", 10, search="openai", since_ms=session.updated_at_ms),
        store.list_sessions("main", 10, since_ms=session.updated_at_ms + 1),
        store.list_sessions("other", 10),
        store.list_from(None, 10),
        store.list_from(older, 10, agent_id="main", stateless=True),
        store.list_from(newer, 10, stateless=True),
        store.list_from(None, 10, stateless=False),
        store.load_conversation(KEY),
        store.load_recent_messages(KEY, 3),
        store.load_recent_messages(KEY, 10),
        store.load_reply(KEY, "r", 3),
        list(store.iter_entries(KEY)),
        store.storage.records.get("r"),
        store.storage.records.list_failures(KEY),
    ]


def test_each_column_has_its_value(ann: Transcripts) -> None:
    usage = Usage(7, 5, 3, cost_nano=11)
    outcome = RunOutcome(RunState.OK, usage, "m/a", "stop", messages=MESSAGES, reply_count=3)
    answer(ann, AcceptedRun("r", KEY, "main", Protocol.WEBSOCKET, 1_000, stateless=True), outcome)
    (row,) = ann.database.fetch(sa.select(stateless_turns), {})
    assert (row.session_key, row.run_id, row.agent_id, row.door) == (KEY, "r", "main", "websocket")
    assert (row.title, row.model, row.stop_reason, row.entry_count, row.reply_count) == ("hello", "m/a", "stop", 4, 3)
    assert (row.input_tokens, row.output_tokens, row.cached_tokens, row.cost_nano) == (7, 5, 3, 11)
    assert (row.accepted_at_ms, row.owner) == (1_000, None)
    assert row.ended_at_ms > row.accepted_at_ms
    assert row.messages.startswith("[")
    assert len({row.session_id, row.gateway_id, KEY, "r", "main"}) == 5


def test_one_row_reads_like_session_with_run(ann: Transcripts, ben: Transcripts) -> None:
    answer(ann, new_run())
    assert rows(ann) == 1
    alone = views(ben)
    assert texts(ben) == [message.text for message in MESSAGES]
    assert alone[6:9] == [(alone[0],), (), ()]
    ben.storage.ledger.open(new_run("next", stateless=False), 0).retract()
    assert rows(ann) == 0
    assert views(ann) == alone


def test_continued_session_keeps_its_first_turn(ann: Transcripts, ben: Transcripts) -> None:
    answer(ann, new_run())
    before = ann.get_session(KEY)
    answer(ben, new_run("next", stateless=False), said("more"))
    assert texts(ann) == [*(message.text for message in MESSAGES), "more"]
    session = ann.get_session(KEY)
    assert session is not None
    assert before is not None
    assert (session.session_id, session.created_at_ms) == (before.session_id, before.created_at_ms)
    assert (session.stateless, session.usage, session.last_run_id) == (False, Usage(14, 10, 6), "next")
    assert ann.list_from(None, 10) == (session,)


@pytest.mark.parametrize("answered_first", [False, True])
def test_session_continued_during_its_first_answer_keeps_both(
    ann: Transcripts, ben: Transcripts, *, answered_first: bool
) -> None:
    first = ann.storage.ledger.open(new_run(), None)
    second = ben.storage.ledger.open(new_run("second", stateless=False), 0)
    if answered_first:
        first.finish(said("first"))
    second.finish(said("second"))
    if not answered_first:
        first.finish(said("first"))
    assert sorted(texts(ann)) == ["first", "second"]
    assert rows(ann) == 0
    assert [session.message_count for session in ann.list_sessions(None, 10)] == [2]
    assert [ann.storage.records.get(name) is not None for name in ("r", "second")] == [True, True]


def test_turn_that_arrives_after_its_session_was_continued_is_moved_there(ann: Transcripts, ben: Transcripts) -> None:
    """The order that two transactions of PostgreSQL may have: the row is added without a sight of the lease."""
    second = ben.storage.ledger.open(new_run("second", stateless=False), 0)
    answer(ann, new_run("r", key="other"))
    ann.database.write(Move())
    second.finish(said("second"))
    assert texts(ann) == [*(message.text for message in MESSAGES), "second"]
    assert rows(ann) == 0


def test_turn_is_stored_once_when_its_commit_is_repeated(ann: Transcripts, ben: Transcripts) -> None:
    operation = FinishRun(new_run(), ann.storage.membership.id, None, False, ANSWERED, 2_000, "id", False)
    assert ann.database.write(operation)
    again = replace(operation)
    again.again = True
    assert ann.database.write(again)
    assert rows(ann) == 1
    answer(ben, new_run("next", stateless=False), said("more"))
    assert ann.database.write(again)
    assert len(texts(ann)) == len(MESSAGES) + 1
    foreign = replace(operation, gateway_id="another")
    foreign.again = True
    assert not ann.database.write(foreign)


def test_many_turns_of_one_commit_with_one_continued(ann: Transcripts) -> None:
    runs = [ann.storage.ledger.open(new_run(f"r{number}", key=f"k{number}"), None) for number in range(5)]
    answer(ann, new_run("second", key="k3", stateless=False), said("second"))
    for number, run in enumerate(runs):
        run.finish(said(str(number)))
    assert [texts(ann, f"k{number}") for number in range(5)] == [["0"], ["1"], ["2"], ["second", "3"], ["4"]]
    assert rows(ann) == 4


@pytest.mark.parametrize(
    "outcome",
    [
        replace(ANSWERED, state=RunState.ABORTED),
        replace(ANSWERED, asked_call_id="call", asked_after="digest"),
        RunOutcome(RunState.ERROR, error_code="broken", error_message="It broke."),
    ],
)
def test_turns_that_others_search_for_have_a_run_of_their_own(ann: Transcripts, outcome: RunOutcome) -> None:
    answer(ann, new_run(), outcome)
    assert rows(ann) == 0
    record = ann.storage.records.get("r")
    assert record is not None
    assert (record.state, record.error_code) == (outcome.state, outcome.error_code)
    assert ann.storage.records.list_failures(KEY) == ({"r": "broken"} if outcome.error_code else {})
    assert list(ann.storage.records.find_asking(["call"], "main")) == (["call"] if outcome.asked_call_id else [])


def test_deleted_session_leaves_nothing(ann: Transcripts, ben: Transcripts) -> None:
    answer(ann, new_run())
    assert ben.delete_session(KEY) is True
    assert ben.delete_session(KEY) is False
    assert (ann.get_session(KEY), ann.storage.records.get("r"), texts(ann)) == (None, None, [])
    assert ann.list_sessions(None, 10) == ()


def test_run_id_of_a_stateless_turn_is_taken(ann: Transcripts, ben: Transcripts) -> None:
    answer(ann, new_run())
    key = IdempotencyKey.of("r", b"")
    named = replace(new_run(key="agent:main:main", stateless=False), claimed=True)
    assert not ben.storage.claims.claim(key, named, ben.storage.membership.id).is_own
    record = ben.storage.records.get("r")
    assert record is not None
    assert record.session_key == KEY
