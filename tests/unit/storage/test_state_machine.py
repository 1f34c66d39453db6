"""Model-based test of the storage: several gateways share a database, die, rejoin and write concurrently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from support.databases import database_url, postgres  # noqa: F401 - fixtures

from service.core.concurrency import sleep
from service.core.errors import GatewayError
from service.core.messages import Message, Role, Usage, text_message
from service.storage.cluster.membership import MISSED_HEARTBEATS, _Heartbeat
from service.storage.database.database import Database, SingleOperation
from service.storage.database.open import open_database
from service.storage.database.schema import lanes, metadata, runs
from service.storage.database.stateless_views import stateless_runs
from service.storage.runs.beginning import AcquireFailure, BeginRun
from service.storage.runs.idempotency import Claim, IdempotencyKey
from service.storage.runs.ledger import OpenRun
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.storage import Storage

MEMBERS = 3
KEYS = ("agent:main:a", "agent:main:ă", "agent:beta:b")
EXAMPLES, EXAMPLES_IN_A_THOROUGH_RUN = 12, 300
NEVER_SECONDS = 1e6

members = st.integers(0, MEMBERS - 1)
keys = st.sampled_from(KEYS)
said = st.lists(st.sampled_from(["one", "zwei", "ba"]), min_size=1, max_size=3).map(
    lambda words: tuple(text_message(Role.USER, word) for word in words)
)
usages = st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
outcomes = (
    st.builds(RunOutcome, st.just(RunState.OK), usage=usages, model=st.sampled_from(["m/a", "m/b"]), messages=said)
    | st.builds(RunOutcome, st.just(RunState.ERROR), usage=usages, error_code=st.just("provider_error"))
    | st.builds(RunOutcome, st.just(RunState.ABORTED), usage=usages, messages=said)
)


class Emptying(SingleOperation[None]):
    """Empty all tables after every earlier write."""

    def apply(self, connection: sa.Connection) -> None:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


class Nothing(SingleOperation[None]):
    def apply(self, connection: sa.Connection) -> None:
        pass


@dataclass
class ModelSession:
    """Expected content of a session: its messages, and how many of them a summary covers."""

    messages: list[Message] = field(default_factory=list)
    summary: Message | None = None
    covers: int = 0
    usage: Usage = Usage()
    model: str | None = None
    last_run_id: str | None = None

    @property
    def conversation(self) -> tuple[Message, ...]:
        return (*([] if self.summary is None else [self.summary]), *self.messages[self.covers :])


@dataclass
class ModelRun:
    key: str
    state: RunState
    gateway_id: str


@dataclass
class HeldRun:
    """A run that holds its session, from its gateway's point of view."""

    member: int
    gateway_id: str
    opened: OpenRun


class StateMachine(RuleBasedStateMachine):
    """Exercises gateways on `databases`, which are emptied after each run."""

    def __init__(self, databases: list[Database]) -> None:
        super().__init__()
        self.databases = databases
        databases[0].write(Emptying())
        ids = map(str, count(1))
        self.new_id = ids.__next__
        self.storages = [
            Storage(database, clock=self.now, new_id=self.new_id, heartbeat_seconds=NEVER_SECONDS)
            for database in databases
        ]
        for storage in self.storages:
            storage.membership.join()
        self.time = 1_700_000_000.0
        self.sessions: dict[str, ModelSession] = {}
        self.runs: dict[str, ModelRun] = {}
        self.holders: dict[str, tuple[str, str]] = {}  # session -> run and gateway that hold it
        self.wanted: dict[str, str] = {}
        self.claims: dict[str, tuple[str, str]] = {}  # key -> fingerprint and run
        self.held: list[HeldRun] = []
        self.knocking: list[tuple[int, AcceptedRun]] = []
        self.alive = {storage.membership.id for storage in self.storages}
        self.fences: dict[str, int] = {}

    time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def teardown(self) -> None:
        for storage in self.storages:
            storage.ledger.close()
            storage.membership.leave()

    def id_of(self, member: int) -> str:
        return self.storages[member].membership.id

    def new_run(self, key: str, *, stateless: bool = False, claimed: bool = False, name: str = "") -> AcceptedRun:
        number = self.new_id()
        accepted_at_ms = int(self.time) * 1000 + int(number)
        return AcceptedRun(
            name or f"run-{number}", key, key.split(":")[1], Protocol.HTTP, accepted_at_ms, stateless, claimed
        )

    def settle(self, member: int) -> None:
        sleep(0)  # spawned greenlets start
        self.databases[member].write(Nothing())

    def holds(self, member: int, key: str) -> bool:
        return any(held.member == member and held.opened.run.session_key == key for held in self.held)

    def can_take(self, gateway_id: str, key: str) -> bool:
        return key not in self.holders and self.wanted.get(key, gateway_id) == gateway_id

    def took(self, member: int, opened: OpenRun) -> None:
        run, gateway_id = opened.run, self.id_of(member)
        self.alive.add(gateway_id)
        if self.wanted.get(run.session_key) == gateway_id:
            del self.wanted[run.session_key]
        self.holders[run.session_key] = run.id, gateway_id
        self.runs[run.id] = ModelRun(run.session_key, RunState.RUNNING, gateway_id)
        self.held.append(HeldRun(member, gateway_id, opened))

    def dropped(self, member: int, run: AcceptedRun) -> None:
        if self.wanted.get(run.session_key) == self.id_of(member):
            del self.wanted[run.session_key]
        self.retracted(run)

    def retracted(self, run: AcceptedRun) -> None:
        """Expect no trace of a run, unless it ended in the meantime."""
        if run.id in self.runs and self.runs[run.id].state.is_final:
            return
        self.runs.pop(run.id, None)
        self.claims = {key: claim for key, claim in self.claims.items() if claim[1] != run.id}

    def open(self, member: int, run: AcceptedRun) -> None:
        """Open a run, or expect a refusal where it would have to wait."""
        mine, before = self.holds(member, run.session_key), self.id_of(member)
        interrupted = run.id in self.runs and self.runs[run.id].state is RunState.INTERRUPTED
        try:
            opened = self.storages[member].ledger.open(run, 0)
        except GatewayError as error:
            self.settle(member)
            self.alive |= {self.id_of(member)} - {before}  # an evicted gateway rejoins
            free = not mine and self.can_take(self.id_of(member), run.session_key)
            self.dropped(member, run)
            # An interrupted run is detected only where the session could be acquired.
            if error.code != ("session_lost" if free else "session_busy") or (free and not interrupted):
                raise
            return
        assert not mine
        assert not interrupted
        assert self.can_take(self.id_of(member), run.session_key)
        self.took(member, opened)

    @rule(member=members, key=keys)
    def open_a_run(self, member: int, key: str) -> None:
        self.open(member, self.new_run(key))

    @rule(member=members, key=keys)
    def wait_for_another_gateway(self, member: int, key: str) -> None:
        gateway_id = self.id_of(member)
        if gateway_id not in self.alive or self.holders.get(key, ("", gateway_id))[1] == gateway_id:
            return
        run = self.new_run(key)
        answer = self.databases[member].write(BeginRun(run, gateway_id, int(self.time)))
        assert answer is AcquireFailure.BUSY
        self.wanted.setdefault(key, gateway_id)
        self.runs[run.id] = ModelRun(key, RunState.QUEUED, gateway_id)
        self.knocking.append((member, run))

    @precondition(lambda self: self.knocking)
    @rule(data=st.data())
    def stop_waiting(self, data: st.DataObject) -> None:
        member, run = self.knocking.pop(data.draw(st.integers(0, len(self.knocking) - 1)))
        if data.draw(st.booleans()):
            self.open(member, run)
        else:
            self.storages[member].ledger.forget(run, self.id_of(member))
            self.dropped(member, run)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=outcomes, summarised=st.integers(0, 3), twice=st.booleans())
    def finish_a_run(self, data: st.DataObject, outcome: RunOutcome, summarised: int, *, twice: bool) -> None:
        held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        run = held.opened.run
        total = len(self.sessions.get(run.session_key, ModelSession()).messages) + len(outcome.messages)
        if 0 < summarised <= total:
            summary = text_message(Role.USER, f"summary by {run.id}")
            outcome = RunOutcome(**{**fields(outcome), "summary": summary, "kept": total - summarised})
        operation = held.opened._to_operation(outcome)
        if self.holders.get(run.session_key) != (run.id, held.gateway_id):
            with pytest.raises(GatewayError) as refused:
                held.opened.finish(outcome)
            assert refused.value.code == "session_lost"
        else:
            held.opened.finish(outcome)
            self.ended(run, outcome)
        if twice:  # as after a connection that broke during the commit
            operation.again = True
            known = self.runs.get(run.id)  # missing if the run was interrupted and deleted with its session
            stored = known is not None and known.state is outcome.state
            assert self.databases[held.member].write(operation) is stored

    def ended(self, run: AcceptedRun, outcome: RunOutcome) -> None:
        self.runs[run.id].state = outcome.state
        self.holders.pop(run.session_key, None)
        if not outcome.messages:
            if outcome.summary is not None:
                session = self.sessions[run.session_key]
                self.summarise(session, outcome)
            return
        session = self.sessions.setdefault(run.session_key, ModelSession())
        session.messages += outcome.messages
        session.usage += outcome.usage
        session.model, session.last_run_id = outcome.model, run.id
        self.summarise(session, outcome)

    def summarise(self, session: ModelSession, outcome: RunOutcome) -> None:
        covers = len(session.messages) - outcome.kept
        if outcome.summary is not None and covers >= session.covers:
            session.summary, session.covers = outcome.summary, covers

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def retract_a_run(self, data: st.DataObject) -> None:
        held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        run = held.opened.run
        held.opened.retract()
        if self.holders.get(run.session_key) == (run.id, held.gateway_id):
            del self.holders[run.session_key]
        if self.wanted.get(run.session_key) == held.gateway_id:
            del self.wanted[run.session_key]
        self.retracted(run)

    @rule(member=members, messages=said, usage=usages)
    def answer_a_stateless_request(self, member: int, messages: tuple[Message, ...], usage: Usage) -> None:
        run = self.new_run(f"agent:main:openai:{self.new_id()}", stateless=True)
        outcome = RunOutcome(RunState.OK, usage, "m/c", messages=messages)
        opened = self.storages[member].ledger.open(run, 0)
        operation = opened._to_operation(outcome)
        opened.finish(outcome)
        operation.again = True
        assert self.databases[member].write(operation) is True
        self.runs[run.id] = ModelRun(run.session_key, RunState.RUNNING, self.id_of(member))
        self.ended(run, outcome)

    @rule(member=members, key=keys, name=st.sampled_from("xy"), fingerprint=st.sampled_from("fg"))
    def claim_and_open(self, member: int, key: str, name: str, fingerprint: str) -> None:
        run, gateway_id = self.new_run(key, claimed=True), self.id_of(member)
        got = self.storages[member].claims.claim(IdempotencyKey(name, fingerprint), run, gateway_id)
        had, by = self.claims.get(name, (fingerprint, ""))
        state = self.runs[by].state if by in self.runs else RunState.ERROR
        if had != fingerprint or not (state.is_final and state is not RunState.OK):
            assert got == Claim(by, had, is_own=False)
            return
        assert got == Claim(run.id, fingerprint, is_own=True)
        self.claims[name] = fingerprint, run.id
        self.runs[run.id] = ModelRun(key, RunState.QUEUED, gateway_id)
        self.open(member, run)

    @rule(
        member=members,
        key=keys,
        name=st.sampled_from("pq"),
        fingerprint=st.sampled_from("fg"),
        abandoned=st.booleans(),
    )
    def claim_for_a_run_of_a_callers_naming(
        self, member: int, key: str, name: str, fingerprint: str, *, abandoned: bool
    ) -> None:
        run, gateway_id = self.new_run(key, claimed=True, name=f"own-{name}"), self.id_of(member)
        got = self.storages[member].claims.claim(IdempotencyKey(f"own {name}", fingerprint), run, gateway_id)
        had, _ = self.claims.get(f"own {name}", (fingerprint, ""))
        is_own = run.id not in self.runs and had == fingerprint
        assert got == Claim(run.id, had, is_own=is_own)
        if is_own:
            self.claims[f"own {name}"] = fingerprint, run.id
            self.runs[run.id] = ModelRun(key, RunState.QUEUED, gateway_id)
        if abandoned:  # the caller left before the claim returned
            self.storages[member].ledger.forget(run, gateway_id)
            if self.wanted.get(key) == gateway_id:
                del self.wanted[key]
            if is_own:
                self.retracted(run)
        elif is_own:
            self.open(member, run)

    @rule(member=members, key=keys)
    def delete_a_session(self, member: int, key: str) -> None:
        expected = None if key in self.holders else key in self.sessions
        assert self.storages[member].transcripts.delete_session(key) is expected
        if expected is None:
            return
        self.sessions.pop(key, None)
        gone = {run_id for run_id, run in self.runs.items() if run.key == key and run.state.is_final}
        self.claims = {name: claim for name, claim in self.claims.items() if claim[1] not in gone}
        for run_id in gone:
            del self.runs[run_id]
        if key not in self.wanted:
            self.fences.pop(key, None)

    @precondition(lambda self: self.runs)
    @rule(member=members, data=st.data())
    def ask_for_an_abort(self, member: int, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.runs)))
        run, records = self.runs[run_id], self.storages[member].records
        assert records.request_abort(run_id) is not run.state.is_final
        assert (run_id in records.list_requests(run.gateway_id).to_abort) is not run.state.is_final

    def renew_heartbeats(self, but: str = "") -> None:
        for member, database in enumerate(self.databases):
            gateway_id = self.id_of(member)
            if gateway_id != but:
                assert database.write(_Heartbeat(gateway_id)) is (gateway_id in self.alive)

    def interrupt_orphans(self) -> None:
        for run in self.runs.values():
            if not run.state.is_final and run.gateway_id not in self.alive:
                run.state = RunState.INTERRUPTED

    @rule(member=members)
    def heartbeat(self, member: int) -> None:
        self.renew_heartbeats()
        self.storages[member].membership._heartbeat()
        self.alive.add(self.id_of(member))
        self.interrupt_orphans()

    @rule(member=members, victim=members)
    def evict_stalled_gateway(self, member: int, victim: int) -> None:
        gateway_id = self.id_of(victim)
        if member == victim or gateway_id not in self.alive:
            return
        for _ in range(MISSED_HEARTBEATS + 1):
            self.renew_heartbeats(but=gateway_id)
            self.storages[member].membership._check_peers()
        self.alive.discard(gateway_id)
        self.holders = {key: holder for key, holder in self.holders.items() if holder[1] != gateway_id}
        self.wanted = {key: by for key, by in self.wanted.items() if by != gateway_id}
        self.interrupt_orphans()

    @rule(seconds=st.sampled_from([1, 60, -3600]))
    def let_the_clock_jump(self, seconds: int) -> None:
        self.time += seconds

    @invariant()
    def reads_agree(self) -> None:
        for number, key in enumerate({*KEYS, *self.sessions}):
            store, expected = self.storages[number % MEMBERS].transcripts, self.sessions.get(key, ModelSession())
            assert store.load_conversation(key) == expected.conversation
            overview = store.get_session(key)
            assert (overview is None) == (key not in self.sessions)
            if overview is not None:
                assert overview.message_count == len(expected.messages)
                assert (overview.usage, overview.model) == (expected.usage, expected.model)
                assert overview.last_run_id == expected.last_run_id
        assert [entry.message for entry in self.storages[0].transcripts.iter_entries(KEYS[0])] == self.sessions.get(
            KEYS[0], ModelSession()
        ).messages

    @invariant()
    def run_records_agree(self) -> None:
        tables = runs, stateless_runs
        recorded = sa.union_all(*(sa.select(table.c.id, table.c.state, table.c.gateway_id) for table in tables))
        stored = self.databases[-1].fetch(recorded, {})
        assert {row.id: (row.state, row.gateway_id) for row in stored} == {
            run_id: (run.state, run.gateway_id) for run_id, run in self.runs.items()
        }

    @invariant()
    def lease_holders_agree(self) -> None:
        stored = self.databases[0].fetch(sa.select(lanes), {})
        assert {row.session_key: (row.run_id, row.gateway_id) for row in stored if row.run_id} == self.holders
        assert {row.session_key: row.wanted_by for row in stored if row.wanted_by} == self.wanted
        for row in stored:
            assert row.fence >= self.fences.get(row.session_key, 0)
            self.fences[row.session_key] = row.fence


def fields(outcome: RunOutcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in RunOutcome.__dataclass_fields__}


@pytest.fixture
def databases(database_url: str | None, tmp_path: Path) -> Iterator[list[Database]]:  # noqa: F811 - as pytest asks
    opened = [open_database(database_url, tmp_path) for _ in range(MEMBERS)]
    yield opened
    for database in opened:
        database.close()


def test_gateways_sharing_database_agree_with_model(databases: list[Database], request: pytest.FixtureRequest) -> None:
    thorough: bool = request.config.getoption("--long")
    run_state_machine_as_test(
        lambda: StateMachine(databases),  # type: ignore[arg-type]  # any factory works
        settings=settings(
            max_examples=EXAMPLES_IN_A_THOROUGH_RUN if thorough else EXAMPLES,
            stateful_step_count=40,
            phases=[Phase.generate, Phase.shrink] if thorough else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_interrupted_run_finds_taken_session_busy(databases: list[Database]) -> None:
    machine, key = StateMachine(databases), KEYS[0]
    try:
        machine.open_a_run(0, key)
        machine.wait_for_another_gateway(1, key)
        machine.evict_stalled_gateway(2, 1)
        ((member, waiting),) = machine.knocking
        assert machine.runs[waiting.id].state is RunState.INTERRUPTED
        machine.open(member, waiting)
        machine.run_records_agree()
        machine.lease_holders_agree()
    finally:
        machine.teardown()
