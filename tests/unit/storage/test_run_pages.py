"""Lists of runs, on each database: order, filters, and pages that show each run exactly once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
from support.transcripts import Transcripts

from service.core.ids import new_uuid, with_time
from service.core.messages import Role, text_message
from service.storage.database.database import Database
from service.storage.runs.pages import RunFilter, RunPosition, list_runs, newest_first
from service.storage.runs.records import RUN_ID_PREFIX, AcceptedRun, Protocol, RunOutcome, RunRecord, RunState

START_MS = 1_700_000_000_000
SAID = (text_message(Role.USER, "hi"), text_message(Role.ASSISTANT, "hello"))
OK = RunOutcome(RunState.OK, messages=SAID, reply_count=1, first_output_at_ms=START_MS + 5, step=2)
FAILED = RunOutcome(RunState.ERROR, error_code="provider_error", error_message="no")


@pytest.fixture
def store(database: Database) -> Iterator[Transcripts]:
    with closing(Transcripts(database, new_id=map("gateway {}".format, count()).__next__)) as opened:
        yield opened


def accepted(at_ms: int, *, session: str | None = None, agent: str = "main", run_id: str | None = None) -> AcceptedRun:
    key = f"agent:{agent}:{session or f'openai:{new_uuid()}'}"
    run_id = run_id or f"{RUN_ID_PREFIX}{with_time(new_uuid(), at_ms)}"
    return AcceptedRun(run_id, key, agent, Protocol.HTTP, at_ms, stateless=session is None)


def run(store: Transcripts, accepted_run: AcceptedRun, outcome: RunOutcome = OK) -> AcceptedRun:
    store.storage.ledger.open(accepted_run, None).finish(outcome)
    return accepted_run


def fill(store: Transcripts) -> list[AcceptedRun]:
    """Runs of all kinds, several in one millisecond, in the order of the list."""
    kinds = random.Random(1)
    runs = []
    for number in range(40):
        at_ms = START_MS + number // 3
        session = kinds.choice([None, None, "one", "two"])
        named = f"caller's {number}" if session and kinds.random() < 0.3 else None
        agent = kinds.choice(["main", "beta"])
        outcome = kinds.choice([OK, OK, FAILED])
        runs.append(run(store, accepted(at_ms, session=session, agent=agent, run_id=named), outcome))
    return sorted(runs, key=lambda one: (one.accepted_at_ms, one.id), reverse=True)


def position_of(one: RunRecord) -> RunPosition:
    return RunPosition(one.accepted_at_ms, one.id)


def pages(store: Transcripts, which: RunFilter, size: int) -> list[RunRecord]:
    found: list[RunRecord] = []
    after: RunPosition | None = None
    while page := list_runs(store.database, which, after, size):
        found += page
        after = position_of(page[-1])
    return found


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_every_run_is_on_one_page_newest_first(store: Transcripts, size: int) -> None:
    stored = [one.id for one in fill(store)]
    assert [one.id for one in pages(store, RunFilter(), size)] == stored


@pytest.mark.parametrize(
    "which",
    [
        RunFilter(agent_id="beta"),
        RunFilter(agent_id="nobody"),
        RunFilter(session_key="agent:main:one"),
        RunFilter(state=RunState.OK),
        RunFilter(state=RunState.ERROR),
        RunFilter(state=RunState.INTERRUPTED),
        RunFilter("main", "agent:main:two", RunState.ERROR),
    ],
    ids=str,
)
def test_filter_lists_what_it_admits(store: Transcripts, which: RunFilter) -> None:
    fill(store)
    everything = pages(store, RunFilter(), 100)
    assert pages(store, which, 3) == [one for one in everything if which.admits(one)]


def test_cursor_of_named_run_divides_stateless_ones(store: Transcripts) -> None:
    for name in ("a", "chatcmpl_", "chatcmpl_018bcfe5-6800-7fff", "chatcmpl_z", "~"):
        for at_ms in (START_MS - 1, START_MS, START_MS + 1):
            run(store, accepted(at_ms))
        named = run(store, accepted(START_MS, session="one", run_id=name))
        everything = pages(store, RunFilter(), 100)
        place = next(place for place, one in enumerate(everything) if one.id == named.id)
        behind = list_runs(store.database, RunFilter(), position_of(everything[place]), 100)
        assert list(behind) == everything[place + 1 :]
    assert newest_first(everything) == tuple(everything)


def test_run_continued_while_paging_stays_on_its_page(store: Transcripts) -> None:
    alone = run(store, accepted(START_MS))
    latest = run(store, accepted(START_MS + 1, session="one"))
    (first,) = list_runs(store.database, RunFilter(), None, 1)
    assert first.id == latest.id
    key = alone.session_key.removeprefix("agent:main:")
    more = run(store, accepted(START_MS + 2, session=key))
    assert [one.id for one in list_runs(store.database, RunFilter(), position_of(first), 9)] == [alone.id]
    assert [one.id for one in pages(store, RunFilter(session_key=alone.session_key), 1)] == [more.id, alone.id]


def test_record_has_first_output_and_step(store: Transcripts) -> None:
    run(store, accepted(START_MS, session="one"))
    (found,) = list_runs(store.database, RunFilter(), None, 9)
    assert (found.first_output_at_ms, found.step) == (START_MS + 5, 2)


def test_active_runs_are_listed_by_state(store: Transcripts) -> None:
    held = accepted(START_MS, session="one")
    opened = store.storage.ledger.open(held, None)
    assert [one.id for one in pages(store, RunFilter(state=RunState.RUNNING), 1)] == [held.id]
    for state in (RunState.QUEUED, RunState.WAITING, RunState.OK):
        assert pages(store, RunFilter(state=state), 1) == []
    opened.finish(OK)
    assert pages(store, RunFilter(state=RunState.RUNNING), 1) == []
