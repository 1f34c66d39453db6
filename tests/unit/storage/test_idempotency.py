"""Idempotency keys on each database: claims, conflicts, expiry and replay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.clock import Clock
from support.transcripts import Transcripts

from service.agent.events import RunEnded, TextDelta
from service.agent.run import Run
from service.core.concurrency import deadline, sleep, spawn
from service.core.messages import Role, ToolCall, Usage, text_message
from service.gateway.replay import Replayer
from service.storage.cluster.membership import _Evict
from service.storage.database.database import Database, SingleOperation
from service.storage.database.open import open_database
from service.storage.database.schema import entries
from service.storage.runs.idempotency import RETENTION_MS, Claim, IdempotencyKey, _ClaimKey
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState

GENEROUS_SECONDS = 60
SESSION = "agent:main:claimed"
KEY = IdempotencyKey.of("key", b"request")
SAME_KEY = IdempotencyKey.of("key", b"another request")
ANSWERED = RunOutcome(
    RunState.OK,
    Usage(3, 2, 1),
    "a/m",
    "stop",
    messages=(text_message(Role.USER, "question"), text_message(Role.ASSISTANT, "answer")),
    reply_count=1,
)


@pytest.fixture
def ann(database: Database, clock: Clock) -> Iterator[Transcripts]:
    """A gateway."""
    with closing(Transcripts(database, clock, map("ann {}".format, count()).__next__)) as opened:
        yield opened


@pytest.fixture
def ben(ann: Transcripts, clock: Clock, database_url: str | None, tmp_path: Path) -> Iterator[Transcripts]:
    """Another gateway that shares its database."""
    del ann
    database = open_database(database_url, tmp_path)
    with closing(Transcripts(database, clock, map("ben {}".format, count()).__next__)) as opened:
        yield opened


def new_run(gateway: Transcripts, run_id: str, *, stateless: bool = False) -> AcceptedRun:
    session = f"{SESSION}:{run_id}" if stateless else SESSION
    return AcceptedRun(run_id, session, "main", Protocol.HTTP, gateway.storage.ledger.now_ms(), stateless, claimed=True)


def claim(gateway: Transcripts, run: AcceptedRun, key: IdempotencyKey = KEY) -> Claim:
    return gateway.storage.claims.claim(key, run, gateway.storage.membership.id)


def run_with_key(gateway: Transcripts, run: AcceptedRun, outcome: RunOutcome, key: IdempotencyKey = KEY) -> None:
    assert claim(gateway, run, key).is_own
    gateway.storage.ledger.open(run, GENEROUS_SECONDS).finish(outcome)


def state_of(gateway: Transcripts, run_id: str) -> RunState | None:
    record = gateway.storage.records.get(run_id)
    return None if record is None else record.state


def test_key_belongs_to_first_run_for_one_day(ann: Transcripts, ben: Transcripts, clock: Clock) -> None:
    assert ann.storage.claims.find(KEY) is None
    first = new_run(ann, "first")
    assert claim(ann, first) == Claim("first", KEY.fingerprint, is_own=True)
    assert state_of(ben, "first") is RunState.QUEUED
    existing = Claim("first", KEY.fingerprint, is_own=False)
    assert claim(ben, new_run(ben, "second")) == ben.storage.claims.find(KEY) == existing
    assert claim(ben, new_run(ben, "second"), SAME_KEY) == existing
    assert state_of(ann, "second") is None
    ann.storage.ledger.open(first, None).finish(ANSWERED)
    clock.now += RETENTION_MS / 1000 - 1
    assert claim(ben, new_run(ben, "third")) == existing
    clock.now += 1
    assert claim(ben, new_run(ben, "fourth"), SAME_KEY) == Claim("fourth", SAME_KEY.fingerprint, is_own=True)


@pytest.mark.parametrize("state", [RunState.ERROR, RunState.ABORTED])
def test_failed_run_releases_key_to_same_request(ann: Transcripts, ben: Transcripts, state: str) -> None:
    run_with_key(ann, new_run(ann, "failed"), RunOutcome(RunState(state)))
    assert claim(ben, new_run(ben, "other"), SAME_KEY) == Claim("failed", KEY.fingerprint, is_own=False)
    run_with_key(ben, new_run(ben, "again"), ANSWERED)
    assert claim(ann, new_run(ann, "late")) == Claim("again", KEY.fingerprint, is_own=False)


def test_dead_gateway_releases_idempotency_keys(ann: Transcripts, ben: Transcripts) -> None:
    claim(ann, new_run(ann, "waits"))
    assert ben.database.write(_Evict(ann.storage.membership.id, None, 1))
    assert claim(ben, new_run(ben, "again")).is_own


def test_one_of_concurrent_claims_wins(ann: Transcripts, ben: Transcripts) -> None:
    keys = [IdempotencyKey.of(f"key {number}", b"") for number in range(20)]
    claims = [
        spawn(claim, gateway, new_run(gateway, f"{name} {number}"), key)
        for number, key in enumerate(keys)
        for name, gateway in (("ann", ann), ("ben", ben))
    ]
    with deadline(GENEROUS_SECONDS):
        got = [greenlet.get() for greenlet in claims]
    for one, other in zip(got[::2], got[1::2], strict=True):
        assert (one.run_id, one.is_own) == (other.run_id, not other.is_own)


def test_retried_claim_recognizes_its_own_commit(ann: Transcripts, ben: Transcripts) -> None:
    mine = _ClaimKey(KEY, new_run(ann, "named"), ann.storage.membership.id)
    others = _ClaimKey(KEY, new_run(ben, "named"), ben.storage.membership.id)
    assert ann.database.write(mine).is_own
    mine.again = others.again = True  # as after a connection that broke during the commit
    assert ann.database.write(mine).is_own
    assert not ben.database.write(others).is_own
    ann.storage.ledger.open(mine.run, None).finish(ANSWERED)
    assert not ann.database.write(mine).is_own


def test_run_id_in_use_cannot_start_another_run(ann: Transcripts, ben: Transcripts, clock: Clock) -> None:
    run = new_run(ann, "named")
    assert claim(ann, run).is_own
    clock.now += 1
    for gateway in (ann, ben):  # the same id from either gateway
        late = new_run(gateway, "named")
        assert claim(gateway, late) == Claim("named", KEY.fingerprint, is_own=False)
        gateway.storage.ledger.forget(late, gateway.storage.membership.id)
        assert state_of(ben, "named") is RunState.QUEUED
    ann.storage.ledger.open(run, None).finish(ANSWERED)
    for gateway in (ann, ben):
        gateway.storage.ledger.forget(new_run(gateway, "named"), gateway.storage.membership.id)
        assert (state_of(ann, "named"), ann.storage.claims.find(KEY) is not None) == (RunState.OK, True)


def test_retracted_run_releases_key_to_any_request(ann: Transcripts, ben: Transcripts) -> None:
    run = new_run(ann, "given up")
    assert claim(ann, run).is_own
    ann.storage.ledger.forget(run, ann.storage.membership.id)
    assert (state_of(ben, "given up"), ben.storage.claims.find(KEY)) == (None, None)
    assert claim(ben, new_run(ben, "another"), SAME_KEY).is_own


def test_evicted_gateway_starts_run_claimed_before_eviction(ann: Transcripts, ben: Transcripts) -> None:
    old_id, run = ann.storage.membership.id, new_run(ann, "claimed")
    assert ben.database.write(_Evict(old_id, None, 1)) is not None
    assert claim(ann, run).is_own  # before it notices
    ann.storage.ledger.open(run, None).finish(ANSWERED)
    assert ann.storage.membership.id != old_id
    assert state_of(ben, "claimed") is RunState.OK
    late = new_run(ann, "late")
    assert not claim(ann, late).is_own


def test_recorded_run_is_replayed_with_its_calls(ann: Transcripts, ben: Transcripts) -> None:
    run_with_key(ann, new_run(ann, "r"), ANSWERED)
    record = ben.storage.records.get("r")
    assert record is not None
    copy = Replayer(ben.storage.records, ben.storage.run_events, ben).recall(record)
    with deadline(GENEROUS_SECONDS):
        events = [event for batch in copy.follow() for event in batch]
    assert events[0] == TextDelta("answer")
    assert isinstance(events[-1], RunEnded)
    assert (events[-1].error, events[-1].usage) == (None, ANSWERED.usage)


def test_answer_that_cannot_be_replayed_ends_with_error(ann: Transcripts, ben: Transcripts) -> None:
    run = new_run(ann, "r")
    assert claim(ann, run).is_own
    opened = ann.storage.ledger.open(run, None)
    record = ben.storage.records.get("r")
    assert record is not None
    copies = [Replayer(ben.storage.records, ben.storage.run_events, ben).recall(record) for _ in range(3)]
    sleep(0.15)
    assert [copy.end for copy in copies] == [None] * 3
    ben.database.close()
    with deadline(GENEROUS_SECONDS):
        ends = [copy.wait_for_end(None) for copy in copies]
    assert [end and end.error and end.error.code for end in ends] == ["storage_unavailable"] * 3
    opened.finish(ANSWERED)


def test_deleted_answer_is_not_replayed_as_empty(ann: Transcripts, ben: Transcripts) -> None:
    run_with_key(ann, new_run(ann, "r"), ANSWERED)
    record = ben.storage.records.get("r")
    assert record is not None
    replays = Replayer(ben.storage.records, ben.storage.run_events, ben)
    ann.database.write(_Clear(entries))
    assert _error_of(replays.recall(record)) == ("run_interrupted", "its answer has been deleted")
    assert ann.delete_session(SESSION)
    assert _error_of(replays.recall(record)) == ("run_interrupted", "its answer has been deleted")
    run_with_key(ben, new_run(ben, "again"), ANSWERED)


def _error_of(copy: Run) -> tuple[str, str]:
    with deadline(GENEROUS_SECONDS):
        end = copy.wait_for_end(None)
    assert end is not None
    assert end.error is not None
    return end.error.code, "its answer has been deleted" if "its answer has been deleted" in end.error.message else ""


@dataclass(slots=True, eq=False)
class _Clear(SingleOperation[None]):
    table: sa.Table

    def apply(self, connection: sa.Connection) -> None:
        connection.execute(self.table.delete())


def test_run_is_found_by_id_of_its_call(ann: Transcripts, ben: Transcripts) -> None:
    call = ToolCall("call-1", "f", "{}")
    for number in range(2):
        run = new_run(ann, f"r{number}", stateless=True)
        opened = ann.storage.ledger.open(run, None)
        assert claim(ann, run, IdempotencyKey.of(run.id, b"")).is_own
        opened.finish(RunOutcome(RunState.OK, messages=ANSWERED.messages, reply_count=1, asked_call_id=call.id))
    strange = ["call-1", "call\0", "\0", "", "é\ud7ff", "x" * 10_000]
    found = ben.storage.records.find_asking(strange, "main")
    assert {call_id: record.id for call_id, record in found.items()} == {"call-1": "r1"}
    assert ben.storage.records.find_asking(strange, "beta") == {}
    assert ben.storage.records.find_asking(["call\0"], "main") == {}
    assert ben.storage.records.find_asking([], "main") == {}


@pytest.mark.parametrize("stateless", [False, True])
def test_run_with_nul_in_ids_and_errors_is_stored(ann: Transcripts, *, stateless: bool) -> None:
    said = (text_message(Role.USER, "a\0b"), *ANSWERED.messages)
    asking = RunOutcome(RunState.OK, messages=said, reply_count=1, asked_call_id="call\0")
    run_with_key(ann, new_run(ann, "asks", stateless=stateless), asking)
    failing = RunOutcome(RunState.ERROR, error_code="provider_error", error_message="It said \0.")
    run_with_key(ann, new_run(ann, "fails", stateless=stateless), failing, IdempotencyKey.of("another", b""))
    assert (state_of(ann, "asks"), state_of(ann, "fails")) == (RunState.OK, RunState.ERROR)
    assert ann.storage.records.find_asking(["call\0"], "main") == {}
    record = ann.storage.records.get("fails")
    assert record is not None
    assert record.error_message == "It said \ufffd."
