"""Pruning: which sessions, runs and keys are deleted, in small steps, under concurrent use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.chat import ask
from support.clock import Clock
from support.live import live_gateway, scripted_config
from support.polling import until
from support.transcripts import Transcripts

from service.config.sessions import MaintenanceConfig
from service.core.concurrency import deadline, spawn
from service.core.messages import Message, Role, Usage, text_message
from service.storage.database.database import Database, SingleOperation
from service.storage.database.open import open_database
from service.storage.database.schema import claims, entries, lanes, runs, sessions, summaries
from service.storage.runs.beginning import AcquireFailure, BeginRun
from service.storage.runs.idempotency import RETENTION_MS, Claim, IdempotencyKey
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.sessions.pruning import SESSIONS_PER_BATCH, Pruner, PruneResult
from service.storage.sessions.retention import DeleteExpired, DeleteIdleLeases, RetentionPolicy

GENEROUS_SECONDS = 60
DAY_SECONDS = 24 * 60 * 60


@pytest.fixture
def store(database: Database, clock: Clock) -> Iterator[Transcripts]:
    with closing(Transcripts(database, clock, map(str, count(1)).__next__)) as opened:
        yield opened


def outcome(*said: str) -> RunOutcome:
    messages: tuple[Message, ...] = tuple(text_message(Role.USER, text) for text in said)
    return RunOutcome(RunState.OK, Usage(1, 2), "m/m", "stop", messages=messages, reply_count=1)


def use(store: Transcripts, key: str, run_id: str | None = None, agent: str = "main") -> None:
    store.finish_run(key, agent, run_id or f"run {key} {store.clock()}", outcome("a", "b"))


def use_once(store: Transcripts, key: str) -> None:
    """Store the turn of a stateless request."""
    run = AcceptedRun(f"run {key}", key, "main", Protocol.HTTP, store.storage.ledger.now_ms(), stateless=True)
    store.storage.ledger.open(run, None).finish(outcome("a", "b"))


def prune(store: Transcripts, **config: Any) -> PruneResult:
    kept = {"stateless_after": None, "runs_after": None, **config}
    with deadline(GENEROUS_SECONDS):
        return Pruner(store.database, MaintenanceConfig(**spelt(kept)), store.clock).run()


def spelt(config: dict[str, Any]) -> dict[str, Any]:
    """Write numbers of days in the configuration's syntax."""
    return {
        name: f"{value}d" if name.endswith("_after") and value else value or False for name, value in config.items()
    }


class AddLeases(SingleOperation[None]):
    """Add leases like those of runs that failed before their sessions had a turn."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def apply(self, connection: sa.Connection) -> None:
        connection.execute(lanes.insert(), [{"session_key": key, "fence": 1, "new_since_ms": 7} for key in self.keys])


def keys(store: Transcripts) -> set[str]:
    return {session.key for session in store.list_sessions(None, 1000)}


def counts(database: Database) -> dict[str, int]:
    return {
        table.name: database.fetch(sa.select(sa.func.count().label("n")).select_from(table), {})[0].n
        for table in (sessions, entries, summaries, runs, lanes, claims)
    }


def test_stateless_sessions_are_deleted_and_named_ones_stay(store: Transcripts, clock: Clock) -> None:
    use_once(store, "old")
    use(store, "named")
    use_once(store, "continued")
    use(store, "continued")
    clock.now += 8 * DAY_SECONDS
    use_once(store, "young")
    assert prune(store, stateless_after=7) == PruneResult(sessions=1)
    assert keys(store) == {"named", "continued", "young"}


def test_named_sessions_are_pruned_by_age_where_configured(store: Transcripts, clock: Clock) -> None:
    use(store, "old")
    use(store, "used again")
    clock.now += 30 * DAY_SECONDS
    use(store, "used again")
    use_once(store, "alone")
    assert prune(store, prune_after=30) == PruneResult(sessions=1)
    assert keys(store) == {"used again", "alone"}


def test_last_used_sessions_of_each_agent_stay(store: Transcripts, clock: Clock) -> None:
    for number in range(6):
        clock.now += 1
        use(store, f"main {number}", agent="main")
        use(store, f"beta {number}", agent="beta")
        use_once(store, f"alone {number}")
    clock.now += 1
    use(store, "main 0")
    assert prune(store, max_entries=2) == PruneResult(sessions=8)
    assert keys(store) == {"main 0", "main 5", "beta 4", "beta 5", *(f"alone {number}" for number in range(6))}
    assert prune(store, max_entries=2) == PruneResult()


def test_deleted_session_leaves_no_rows(store: Transcripts, clock: Clock) -> None:
    run = AcceptedRun(
        "claimed", "s", "main", Protocol.HTTP, store.storage.ledger.now_ms(), stateless=False, claimed=True
    )
    store.storage.claims.claim(IdempotencyKey.of("k", b"{}"), run, store.storage.membership.id)
    store.storage.ledger.open(run, None).finish(outcome("a", "b", "c"))
    store.append_summary("s", "r2", text_message(Role.SYSTEM, "in short"), kept=1)
    assert all(counts(store.database).values())
    clock.now += 31 * DAY_SECONDS
    assert prune(store, prune_after=30).sessions == 1
    assert not any(counts(store.database).values())


def test_session_in_use_is_not_pruned(store: Transcripts, clock: Clock) -> None:
    for name in ("held", "free"):
        use(store, name)
    clock.now += 31 * DAY_SECONDS
    held = store.storage.ledger.open(AcceptedRun("r", "held", "main", Protocol.HTTP, 0, stateless=False), None)
    assert prune(store, prune_after=30) == PruneResult(sessions=1)
    assert keys(store) == {"held"}
    held.finish(outcome("c"))
    assert [message.text for message in store.load_conversation("held")] == ["a", "b", "c"]


def lease_keys(store: Transcripts) -> set[str]:
    return {row.session_key for row in store.database.fetch(sa.select(lanes.c.session_key), {})}


def test_unused_leases_of_sessions_without_turns_are_deleted(
    database_url: str | None, store: Transcripts, clock: Clock, tmp_path: Path
) -> None:
    store.database.write(AddLeases(*(f"empty {number:04}" for number in range(1_100))))  # more than one page
    store.finish_run("failed", "main", "r1", RunOutcome(RunState.ERROR))
    use(store, "used")
    held = store.storage.ledger.open(AcceptedRun("r2", "held", "main", Protocol.HTTP, 0, stateless=False), None)
    with closing(Transcripts(open_database(database_url, tmp_path), clock)) as other:
        busy = BeginRun(
            AcceptedRun("r3", "held", "main", Protocol.HTTP, 0, stateless=False), other.storage.membership.id, 0
        )
        assert other.database.write(busy) is AcquireFailure.BUSY
        held.finish(RunOutcome(RunState.ERROR))  # "held" is free, but a gateway waits for it
        again = store.storage.ledger.open(AcceptedRun("r4", "failed", "main", Protocol.HTTP, 0, stateless=False), None)
        assert prune(store) == PruneResult()
        assert lease_keys(store) == {"failed", "held", "used"}
        again.finish(outcome("first words"))
    assert prune(store) == PruneResult()
    assert lease_keys(store) == {"failed", "used"}
    assert [message.text for message in store.load_conversation("failed")] == ["first words"]


def test_lease_taken_since_it_was_found_stays(store: Transcripts) -> None:
    store.finish_run("s", "main", "r1", RunOutcome(RunState.ERROR))
    [found] = RetentionPolicy(store.database, MaintenanceConfig()).iter_idle_leases()
    assert found == ["s"]
    held = store.storage.ledger.open(AcceptedRun("r2", "s", "main", Protocol.HTTP, 0, stateless=False), None)
    store.database.write(DeleteIdleLeases(found))
    held.finish(outcome("kept"))
    store.database.write(DeleteIdleLeases(found))
    assert lease_keys(store) == {"s"}
    assert [message.text for message in store.load_conversation("s")] == ["kept"]


def test_session_used_since_it_was_found_stays(store: Transcripts, clock: Clock) -> None:
    use(store, "s")
    clock.now += 31 * DAY_SECONDS
    found = list(Pruner(store.database, MaintenanceConfig(**spelt({"prune_after": 30})), clock).iter_expired())
    use(store, "s", "later")
    assert store.database.write(DeleteExpired(found)) == 0
    assert keys(store) == {"s"}


def test_more_than_one_page_is_deleted_in_steps(store: Transcripts, clock: Clock) -> None:
    total = 3 * SESSIONS_PER_BATCH + 1
    with deadline(GENEROUS_SECONDS):
        for greenlet in [spawn(use_once, store, f"s{number}") for number in range(total)]:
            greenlet.get()
    clock.now += 8 * DAY_SECONDS
    steps = iter([True, True])
    maintenance = Pruner(store.database, MaintenanceConfig(**spelt({"stateless_after": 7})), clock)
    assert maintenance.run(lambda: next(steps, False)).sessions == 2 * SESSIONS_PER_BATCH
    assert maintenance.run().sessions == SESSIONS_PER_BATCH + 1
    assert keys(store) == set()


def test_old_run_records_and_keys_are_deleted(store: Transcripts, clock: Clock) -> None:
    use(store, "s", "old")
    store.storage.claims.claim(
        IdempotencyKey.of("k", b"{}"),
        AcceptedRun("waits", "t", "main", Protocol.HTTP, store.storage.ledger.now_ms(), stateless=False, claimed=True),
        store.storage.membership.id,
    )
    clock.now += RETENTION_MS / 1000 + 1
    use(store, "s", "young")
    assert prune(store, runs_after=1) == PruneResult(runs=1, idempotency_keys=1)
    assert [store.storage.records.get(one) is not None for one in ("old", "waits", "young")] == [False, True, True]
    assert len(store.load_conversation("s")) == 4


def test_concurrent_pruning_does_not_disturb_runs(
    database_url: str | None, store: Transcripts, clock: Clock, tmp_path: Path
) -> None:
    for number in range(40):
        use(store, f"s{number:02}")
    clock.now += 31 * DAY_SECONDS
    config = MaintenanceConfig(**spelt({"prune_after": 30}))
    with closing(Transcripts(open_database(database_url, tmp_path), clock)) as other:
        both = [spawn(Pruner(one.database, config, clock).run) for one in (store, other)]
        runs_meanwhile = [spawn(use, store, f"s{number:02}", f"again {number}") for number in range(0, 40, 3)]
        with deadline(GENEROUS_SECONDS):
            for greenlet in runs_meanwhile:
                greenlet.get()
            deleted = [greenlet.get().sessions for greenlet in both]
    used = {f"s{number:02}" for number in range(0, 40, 3)}
    assert keys(store) == used
    assert 40 - len(used) <= sum(deleted) <= 40
    for key in used:  # either deleted and recreated, or continued
        assert [message.text for message in store.load_conversation(key)][-2:] == ["a", "b"]


def test_mode_warn_deletes_only_idempotency_keys(
    store: Transcripts, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    use(store, "s")
    clock.now += 31 * DAY_SECONDS
    config = MaintenanceConfig(mode="warn", **spelt({"prune_after": 30, "runs_after": 1}))
    maintenance = Pruner(store.database, config, clock)
    maintenance.start(first_seconds=0, interval_seconds=3600)
    until(lambda: "1 sessions have expired" in caplog.text)
    maintenance.stop()
    assert keys(store) == {"s"}


def test_gateway_prunes_in_background(tmp_path: Path) -> None:
    config = {**scripted_config(), "session": {"maintenance": {"statelessAfter": "1s"}}}
    with live_gateway(tmp_path, config) as running, running.client() as client:
        alone = ask(client, "hi").headers["x-openclaw-session-key"]
        named = ask(client, "hi", user="anna").headers["x-openclaw-session-key"]
        assert client.get(f"/v1/sessions/{alone}").status_code == 200
    with live_gateway(tmp_path, config) as running, running.client() as client:
        until(lambda: client.get(f"/v1/sessions/{alone}").status_code == 404)
        assert client.get(f"/v1/sessions/{named}").status_code == 200


def use_with_key(store: Transcripts, key: str, idempotency_key: IdempotencyKey, *, stateless: bool) -> AcceptedRun:
    now_ms = store.storage.ledger.now_ms()
    run = AcceptedRun(f"run {key}", key, "main", Protocol.HTTP, now_ms, stateless, claimed=True)
    assert store.storage.claims.claim(idempotency_key, run, store.storage.membership.id).is_own
    store.storage.ledger.open(run, None).finish(outcome("question", "answer"))
    return run


@pytest.mark.parametrize(
    "config", [{"stateless_after": "1h", "prune_after": "1h"}, {"stateless_after": "1h", "max_entries": 1}]
)
def test_session_is_kept_as_long_as_its_idempotency_key(
    store: Transcripts, clock: Clock, config: dict[str, Any]
) -> None:
    names = {name: IdempotencyKey.of(name, b"") for name in ("alone", "named", "named too")}
    for name, key in names.items():
        use_with_key(store, name, key, stateless=name == "alone")
        use(store, f"{name} without a key")
    clock.now += RETENTION_MS / 1000 - 1
    use(store, "young")
    spelt_out: dict[str, Any] = {"runs_after": "1h", **config}
    maintenance = Pruner(store.database, MaintenanceConfig(**spelt_out), clock)
    with deadline(GENEROUS_SECONDS):
        maintenance.run()
    assert keys(store) == {*names, "young"}
    for name, key in names.items():
        assert store.storage.claims.find(key) == Claim(f"run {name}", key.fingerprint, is_own=False)
        record = store.storage.records.get(f"run {name}")
        assert record is not None
        assert [message.text for message in store.load_reply(name, record.id, record.reply_count)] == ["answer"]
    clock.now += 2
    with deadline(GENEROUS_SECONDS):
        maintenance.run()
    assert keys(store) == {"young"}
    assert [store.storage.claims.find(key) for key in names.values()] == [None] * 3
