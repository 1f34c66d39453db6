"""The daily totals of usage, on each database: counted once, with whatever ends a run, and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.transcripts import Transcripts

from service.config.sessions import MaintenanceConfig
from service.core.concurrency import spawn
from service.core.errors import GatewayError
from service.core.messages import Role, Usage, text_message
from service.core.usage import ModelCall, UsageTotals, total_of
from service.storage.database.daily_usage import UsageEntry
from service.storage.database.database import Database, SingleOperation
from service.storage.database.errors import StoreError
from service.storage.database.open import open_database
from service.storage.database.schema import claims
from service.storage.runs.finishing import FinishRun
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.runs.retraction import AbandonRun
from service.storage.sessions.pruning import Pruner
from service.storage.usage import DailyUsage, UsageGroup, UsageRow

DAY_MS = 24 * 60 * 60 * 1000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
DAY = 20_000

COSTED = Usage(7, 5, 3, 2, 1, cost_nano=40)
FREE = Usage(1, 1, cost_nano=0)
UNKNOWN = Usage(2, 2, cost_nano=None)


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.ms = NOON_MS

    def __call__(self) -> float:
        return self.ms / 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database, clock: Clock) -> Iterator[Transcripts]:
    with closing(Transcripts(database, clock, map("ann {}".format, count()).__next__)) as opened:
        yield opened


def new_run(run_id: str, *, account: str = "", user: str | None = None, **fields: Any) -> AcceptedRun:
    fields = {"session_key": f"agent:main:{run_id}", "stateless": True, **fields}
    return AcceptedRun(
        run_id, agent_id="main", protocol=Protocol.HTTP, accepted_at_ms=NOON_MS, account=account, user=user, **fields
    )


def used(**calls: Usage | list[Usage]) -> RunOutcome:
    """The outcome of a run that has called models by name; the last one answered."""
    made = [
        ModelCall(model, usage)
        for model, given in calls.items()
        for usage in (given if isinstance(given, list) else [given])
    ]
    messages = (text_message(Role.USER, "hi"), text_message(Role.ASSISTANT, "ho"))
    model = made[-1].model
    return RunOutcome(RunState.OK, total_of(made), model, "stop", messages=messages, reply_count=1, calls=made)


def finish(store: Transcripts, run: AcceptedRun, outcome: RunOutcome) -> None:
    store.storage.ledger.open(run, None).finish(outcome)


def rows(store: Transcripts, by: UsageGroup, first: int = DAY - 9, last: int = DAY + 9, **which: Any) -> list[UsageRow]:
    return list(DailyUsage(store.database).list(by, first, last, **which))


def total(store: Transcripts, account: str | None = None) -> UsageRow:
    return DailyUsage(store.database).total(DAY - 9, DAY + 9, account=account)


def test_runs_add_up_by_key_user_agent_model_and_day(store: Transcripts, clock: Clock) -> None:
    finish(store, new_run("a", account="k1", user="ann"), used(fast=COSTED))
    finish(store, new_run("b", account="k1", user="ben"), used(slow=[COSTED, UNKNOWN], fast=COSTED))
    clock.ms += DAY_MS
    finish(
        store, new_run("c", account="k2", user="ann", session_key="agent:main:s", stateless=False), used(fast=COSTED)
    )
    finish(store, new_run("d"), used(free=FREE))

    assert total(store) == UsageRow(UsageTotals(4, 6, 1, 31, 12, 4, 23, 8, 160))
    by_key = [(row.account, row.totals.runs, row.totals.cost_nano) for row in rows(store, UsageGroup.KEY)]
    assert by_key == [("k1", 2, 120), ("k2", 1, 40), ("", 1, 0)]
    by_user = [(row.account, row.user, row.totals.model_calls) for row in rows(store, UsageGroup.USER)]
    assert by_user == [("k1", "ben", 3), ("k1", "ann", 1), ("k2", "ann", 1), ("", "", 1)]
    by_model = [(row.model, row.totals.runs, row.totals.uncosted_calls) for row in rows(store, UsageGroup.MODEL)]
    assert by_model == [("fast", 3, 0), ("slow", 0, 1), ("free", 1, 0)]
    assert [(row.agent_id, row.totals.runs) for row in rows(store, UsageGroup.AGENT)] == [("main", 4)]
    assert [(row.day, row.totals.runs) for row in rows(store, UsageGroup.DAY)] == [(DAY, 2), (DAY + 1, 2)]

    assert rows(store, UsageGroup.DAY, DAY + 1, DAY + 1) == rows(store, UsageGroup.DAY)[1:]
    assert rows(store, UsageGroup.KEY, limit=1) == rows(store, UsageGroup.KEY)[:1]
    assert [row.user for row in rows(store, UsageGroup.USER, account="k1")] == ["ben", "ann"]
    assert total(store, "k2").totals == rows(store, UsageGroup.KEY)[1].totals
    assert total(store, "none") == UsageRow(UsageTotals())


@pytest.mark.parametrize("stateless", [True, False])
@pytest.mark.parametrize("recorded", [True, False])
def test_an_end_that_is_written_again_counts_once(store: Transcripts, *, stateless: bool, recorded: bool) -> None:
    run = new_run("r", stateless=stateless, detached=recorded)
    if recorded:
        store.storage.ledger.accept(run)
    opened = store.storage.ledger.open(run, None)
    end = FinishRun(
        *(run, store.storage.membership.id, None if stateless else 1, recorded or not stateless),
        *(used(m=COSTED), NOON_MS, "an id", False),
    )
    assert store.database.write(end)
    end.again = True  # as after a commit without an acknowledgement
    assert store.database.write(end)
    if not stateless:
        opened.retract()
    assert total(store) == UsageRow(UsageTotals(1, 1, 0, 7, 3, 1, 5, 2, 40))


def fail(store: Transcripts) -> None:
    with pytest.raises(StoreError):
        store.database.write(Failing())


class Failing(SingleOperation[None]):
    """Fails whenever it is written with others, and alone."""

    def apply(self, connection: sa.Connection) -> None:
        connection.execute(claims.insert().values(key_hash="k"))  # without what it needs


def test_a_commit_that_fails_for_another_operation_counts_once(store: Transcripts) -> None:
    failing = [spawn(fail, store) for _ in range(3)]
    ends = [spawn(finish, store, new_run(f"r{number}"), used(m=COSTED)) for number in range(5)]
    for one in (*failing, *ends):
        one.get()
    assert (total(store).totals.runs, total(store).totals.cost_nano) == (5, 200)


def test_a_run_whose_lease_is_lost_counts_nothing(store: Transcripts) -> None:
    run = new_run("r", stateless=False)
    opened = store.storage.ledger.open(run, None)
    store.database.write(AbandonRun(run, NOON_MS, GatewayError("run_aborted", "aborted")))
    with pytest.raises(GatewayError):
        opened.finish(used(m=COSTED))
    assert total(store).totals.runs == 0


def test_an_outcome_that_could_not_be_stored_counts_with_the_end_of_its_run(store: Transcripts) -> None:
    run = new_run("r", stateless=False)
    store.storage.ledger.open(run, None)
    end = FinishRun(run, store.storage.membership.id, 1, True, used(m=COSTED), NOON_MS, "an id", False)
    abandoned = AbandonRun(run, NOON_MS, GatewayError("storage_unavailable", "lost"), lost=end)
    store.database.write(abandoned)
    store.database.write(abandoned)
    assert (total(store).totals.runs, total(store).totals.cost_nano) == (1, 40)
    found = store.storage.records.get("r")
    assert found is not None
    assert (found.state, found.usage.cost_nano, found.usage.input_tokens) == (RunState.ERROR, 40, 7)


def test_totals_outlive_the_runs_and_sessions(store: Transcripts, clock: Clock) -> None:
    finish(store, new_run("a", session_key="agent:main:s", stateless=False), used(m=COSTED))
    finish(store, new_run("b"), used(m=COSTED))
    before = total(store)
    clock.ms += 5 * DAY_MS
    assert store.delete_session("agent:main:s")
    expiry: dict[str, Any] = {"mode": "enforce", "stateless_after": "1d"}
    assert Pruner(store.database, MaintenanceConfig(**expiry), clock).run().sessions == 1
    assert [store.storage.records.get(run_id) for run_id in "ab"] == [None, None]
    assert total(store) == before


def test_processes_add_to_the_same_rows(store: Transcripts, database_url: str | None, tmp_path: Path) -> None:
    other = Transcripts(open_database(database_url, tmp_path), store.clock, map("ben {}".format, count()).__next__)
    with closing(other):
        for number in range(4):
            finish(store, new_run(f"a{number}", account="k"), used(x=COSTED, y=COSTED))
            finish(other, new_run(f"b{number}", account="k"), used(y=COSTED, x=COSTED))
        assert [(row.model, row.totals.model_calls, row.totals.runs) for row in rows(other, UsageGroup.MODEL)] == [
            ("x", 8, 4),
            ("y", 8, 4),
        ]


def test_costs_are_kept_with_runs_and_sessions(store: Transcripts) -> None:
    key = "agent:main:openai:alone"
    finish(store, new_run("a", session_key=key), used(m=COSTED))
    session = store.get_session(key)
    assert session is not None
    assert session.usage.cost_nano == 40
    run = new_run("b", session_key=key, stateless=False)
    finish(store, run, used(m=COSTED))
    session = store.get_session(key)
    assert session is not None
    assert session.usage.cost_nano == 80
    assert [store.storage.records.get(one).usage.cost_nano for one in "ab"] == [40, 40]  # type: ignore[union-attr]
    finish(store, replace(run, id="c"), used(m=UNKNOWN))
    session = store.get_session(key)
    assert session is not None
    assert session.usage.cost_nano is None
    assert total(store).totals.cost_nano == 80


def test_embeddings_count_once_for_each_time_they_are_made(store: Transcripts) -> None:
    answers = store.storage.kept_answers
    calls = (ModelCall("embed", Usage(9, cost_nano=3)),)
    spent = UsageEntry(NOON_MS, "k", "u\0" + "x" * 300, "main", calls)
    answers.count(spent, NOON_MS)
    key = IdempotencyKey.of("key", b"request")
    answers.keep(key, "[1]", NOON_MS, spent)
    answers.keep(key, "[1]", NOON_MS + 1, spent)  # by another process, which has asked its provider, too
    [row] = rows(store, UsageGroup.USER)
    assert row.totals == UsageTotals(0, 3, 0, 27, cost_nano=9)
    assert row.user is not None
    assert len(row.user) == 128
    assert rows(store, UsageGroup.KEY)[0].account == "k"
    assert answers.find(key, NOON_MS) is not None


def test_what_is_spent_has_estimates_and_is_read_again_when_it_may_have_changed(store: Transcripts) -> None:
    usage = DailyUsage(store.database)
    cut_off = used(m=UNKNOWN)
    finish(store, new_run("a", account="k"), replace(cut_off, calls=(replace(cut_off.calls[0], estimate_nano=5),)))
    assert usage.spent(DAY, DAY, "k") == usage.spent(DAY, DAY, None, "main") == usage.spent(DAY, DAY) == 5
    finish(store, new_run("b", account="k"), used(m=COSTED))
    usage.forget("k", "main")
    assert usage.spent(DAY, DAY, "k") == usage.spent(DAY, DAY, None, "main") == usage.spent(DAY, DAY) == 45
    assert usage.spent(DAY + 1, DAY + 1, "k") == usage.spent(DAY, DAY, "other") == usage.spent(DAY, DAY, None, "x") == 0
    assert total(store).totals.cost_nano == 40
