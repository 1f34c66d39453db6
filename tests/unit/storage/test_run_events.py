"""Stored events of detached runs, on each database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count

import pytest
import sqlalchemy as sa
from support.transcripts import Transcripts

from service.config.sessions import MaintenanceConfig
from service.core.messages import Role, Usage, text_message
from service.storage.database.database import Database
from service.storage.database.schema import run_events
from service.storage.runs.events import (
    BATCH_UNITS,
    AppendEvents,
    EventBatch,
    LoggedEvent,
    RunProgress,
    to_batches,
)
from service.storage.runs.idempotency import RETENTION_MS
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.sessions.pruning import Pruner

RUN = AcceptedRun("r", "agent:main:openai:r", "main", Protocol.HTTP, 1_000, stateless=True, detached=True)
SAID = (text_message(Role.USER, "hi"), text_message(Role.ASSISTANT, "hello"))
OK = RunOutcome(RunState.OK, messages=SAID, reply_count=1)
PROGRESS = RunProgress(2_000, 3_000, "m/a", 2, "look", Usage(1, 2, 3))


@pytest.fixture
def store(database: Database) -> Iterator[Transcripts]:
    with closing(Transcripts(database, new_id=map("gateway {}".format, count()).__next__)) as opened:
        opened.storage.ledger.accept(RUN)
        yield opened


def text(last: int, written: str) -> LoggedEvent:
    return LoggedEvent.of(last, "text.delta", {"text": written})


def append(store: Transcripts, first: int, *events: LoggedEvent, gateway_id: str | None = None) -> bool:
    batches = to_batches(first, events)
    own_id = store.storage.membership.id if gateway_id is None else gateway_id
    return store.storage.run_events.append(AppendEvents(RUN.id, own_id, batches, PROGRESS, notify_peers=True))


def stored_text(store: Transcripts, after: int = 0) -> str:
    events = store.storage.run_events.read_after(RUN.id, after)
    return "".join(event.data.decode().rpartition(':"')[2].removesuffix('"}') for event in events)


def rows(store: Transcripts) -> int:
    counted = sa.select(sa.func.count().label("n")).select_from(run_events)
    return int(store.database.fetch(counted, {})[0].n)


def test_events_are_read_from_any_number(store: Transcripts) -> None:
    assert append(store, 3, text(5, "abc"), text(7, "de"))
    assert append(store, 8, text(10, "fgh"))
    for after in range(2, 11):
        assert stored_text(store, after) == "abcdefgh"[after - 2 :]


def test_batch_of_uncertain_fate_is_stored_once_with_what_came_since(store: Transcripts) -> None:
    append(store, 3, text(5, "abc"))
    append(store, 3, text(5, "abc"), text(7, "de"))
    append(store, 3, text(7, "abcde"))
    assert (stored_text(store), rows(store)) == ("abcde", 1)


def test_number_within_longest_batch_is_found(store: Transcripts) -> None:
    pieces = [text(2 + 1000 * number, "x" * 1000) for number in range(1, 200)]
    append(store, 3, *pieces)
    assert rows(store) > 3
    for after in (2, 2 + BATCH_UNITS - 1, 2 + BATCH_UNITS, 2 + 199_000 - 1):
        found, last = "", after
        while more := store.storage.run_events.read_after(RUN.id, last):
            found += "x" * (more[-1].number - last)
            last = more[-1].number
        assert last == 2 + 199_000
        assert len(found) == last - after


def test_progress_is_part_of_the_record(store: Transcripts) -> None:
    append(store, 3, text(3, "a"))
    found = store.storage.records.get(RUN.id)
    assert found is not None
    assert (found.state, found.started_at_ms, found.first_output_at_ms) == (RunState.RUNNING, 2_000, 3_000)
    assert (found.model, found.step, found.tool, found.usage) == ("m/a", 2, "look", Usage(1, 2, 3))


def test_run_of_another_or_ended_run_gets_no_events(store: Transcripts) -> None:
    assert not append(store, 3, text(3, "a"), gateway_id="another")
    last = EventBatch(3, (text(4, "ab"),))
    store.storage.ledger.open(RUN, None).finish(replace(OK, events=(last,)))
    assert not append(store, 3, text(5, "abc"))
    assert stored_text(store) == "ab"
    found = store.storage.records.get(RUN.id)
    assert found is not None
    assert (found.state, found.tool) == (RunState.OK, None)


def test_evicted_gateways_run_keeps_what_was_committed(store: Transcripts) -> None:
    append(store, 3, text(3, "a"))
    own_id = store.storage.membership.id
    store.storage.membership.leave()
    assert not append(store, 4, text(4, "b"), gateway_id=own_id)
    found = store.storage.records.get(RUN.id)
    assert found is not None
    assert (found.state, stored_text(store)) == (RunState.INTERRUPTED, "a")


def test_events_are_deleted_with_their_run(store: Transcripts) -> None:
    append(store, 3, text(3, "a"))
    store.storage.ledger.open(RUN, None).finish(OK)
    assert store.delete_session(RUN.session_key) is True
    assert rows(store) == 0


def test_events_expire_with_their_run(store: Transcripts) -> None:
    append(store, 3, text(3, "a"))
    store.storage.ledger.open(RUN, None).finish(OK)
    config = MaintenanceConfig.model_validate({"runsAfter": "1d", "statelessAfter": False})
    later = store.clock() + 2 * RETENTION_MS / 1000
    assert Pruner(store.database, config, lambda: later).run().runs == 1
    assert (store.storage.records.get(RUN.id), rows(store)) == (None, 0)
