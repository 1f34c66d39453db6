"""Plans of all statements, of requests and in the background: an index leads to the rows of every long table."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from support.databases import Postgres
from support.live import scripted_config

from service.agent.conversation import IncomingMessage
from service.agent.request import AgentRequest
from service.config.schema import parse_config
from service.config.sessions import MaintenanceConfig
from service.config.source import Locations
from service.core.messages import Role, text_message
from service.core.principal import ADMINISTRATOR
from service.gateway.build import open_gateway
from service.gateway.gateway import Gateway
from service.storage.cluster.membership import _EndOrphans
from service.storage.database.open import FILE_NAME
from service.storage.database.schema import metadata
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.pages import RunFilter, RunPosition
from service.storage.runs.records import Protocol, RunState
from service.storage.sessions.pruning import Pruner

GENEROUS_SECONDS = 60
SESSION = "agent:main:plans"
QUERIES = ("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")

#: Small by nature, and read as a whole: the processes of a cluster, and the addresses that are locked out.
SMALL_TABLES = {"gateways", "login_failures", "alembic_version"}

#: Indexes of few rows: what goes on, waits or failed.
PARTIAL_INDEXES = {
    index.name
    for table in metadata.sorted_tables
    for index in table.indexes
    if index.dialect_options["sqlite"]["where"] is not None
}


def ask(gateway: Gateway, *texts: str, session: str | None = SESSION, key: str | None = None) -> str:
    """Send texts of the user and the assistant in turns; return the id of the run."""
    idempotency = None if key is None else IdempotencyKey.of(key, texts[0].encode())
    said = (text_message(role, text) for text, role in zip(texts, cycle((Role.USER, Role.ASSISTANT)), strict=False))
    messages = tuple(IncomingMessage("message", message) for message in said)
    run = gateway.submit(
        AgentRequest(
            ADMINISTRATOR, Protocol.HTTP, messages, agent_id="main", session_key=session, idempotency_key=idempotency
        )
    )
    end = run.wait_for_end(GENEROUS_SECONDS)
    assert end is not None
    assert end.error is None
    return run.id


def use_everything(gateway: Gateway) -> None:
    """Runs with and without a session, replays, and what the session and run operations read and write."""
    ask(gateway, "one")
    ask(gateway, "two")
    ask(gateway, "one", "one", "two", "two", "three")
    ask(gateway, "one", "one", "zwei")
    ask(gateway, "one", "uno", "two")
    ask(gateway, "alone", session=None)
    ask(gateway, "named", key="named")
    run_id = ask(gateway, "named", key="named")
    gateway.get_run(run_id, ADMINISTRATOR)
    list_all_runs(gateway)
    gateway.abort(run_id)
    store = gateway.storage.transcripts
    store.get_session(SESSION)
    store.load_conversation(SESSION)
    store.list_sessions("main", limit=10)
    store.list_sessions(None, search="o", limit=10)
    store.list_from(None, 10, agent_id="main")
    store.list_sessions(None, owner="key:aaaaaaaaaaaa", limit=10)
    store.list_from(None, 10, owner="key:aaaaaaaaaaaa")
    store.load_recent_messages(SESSION, 10)
    list(store.iter_entries(SESSION))
    store.list_summaries(SESSION)
    store.delete_session(SESSION)
    assert gateway.failing() == []
    maintain(gateway)


def maintain(gateway: Gateway) -> None:
    """What happens in the background, and at the end: heartbeats, requests of others, pruning, leaving."""
    ask(gateway, "old")
    ask(gateway, "old", session=None)
    ask(gateway, "old", key="old")
    storage = gateway.storage
    storage.records.list_in_new_sessions()
    storage.records.list_requests(storage.membership.id)
    storage.records.request_abort("unknown")
    storage.records.request_events("unknown")
    storage.database.write(_EndOrphans(0))
    storage.membership._heartbeat()
    limits = (
        MaintenanceConfig.model_validate({"runsAfter": "1s", "statelessAfter": False}),
        MaintenanceConfig.model_validate({"pruneAfter": "1s", "statelessAfter": "1s", "maxEntries": 1}),
    )
    pruned = [Pruner(storage.database, one, lambda: time.time() + 10 * 24 * 3600).run() for one in limits]
    assert [(one.sessions > 0, one.runs > 0, one.idempotency_keys > 0) for one in pruned] == [
        (False, True, True),
        (True, False, False),
    ]
    storage.membership.leave()


def list_all_runs(gateway: Gateway) -> None:
    for agent in (None, "main"):
        for session in (None, SESSION):
            for state in (None, *RunState):
                for after in (None, RunPosition(2_000_000_000_000, "chatcmpl_")):
                    gateway.list_runs(RunFilter(agent, session, state), after, 10)
                    if agent is session is None:
                        gateway.list_runs(RunFilter(state=state, owner="key:aaaaaaaaaaaa"), after, 10)


@contextmanager
def opened(tmp_path: Path, environ: dict[str, str]) -> Iterator[Gateway]:
    config, _ = parse_config(scripted_config())
    locations = Locations(tmp_path / "openclaw.json", tmp_path, dev=False)
    with closing(open_gateway(config, locations, environ)) as gateway:
        gateway.storage._pruner.stop()  # type: ignore[union-attr]
        yield gateway


def test_no_statement_of_a_request_scans_a_table_of_sqlite(tmp_path: Path) -> None:
    statements: dict[str, None] = {}
    executed: dict[str, Any] = {}  # with parameters, for which SQLite uses no partial index

    def trace(connection: Any, _record: object) -> None:
        connection.set_trace_callback(statements.setdefault)

    def record(_connection: object, _cursor: object, text: str, parameters: Any, *_: object) -> None:
        executed.setdefault(text, parameters)

    event.listen(sa.Engine, "connect", trace)
    event.listen(sa.Engine, "before_cursor_execute", record)
    try:
        with opened(tmp_path, {}) as gateway:
            ask(gateway, "start")
            statements.clear()
            use_everything(gateway)
        seen = [(text, given) for text, given in executed.items() if text.startswith(QUERIES)]
        seen += [(text, ()) for text in statements if text.startswith(QUERIES)]
    finally:
        event.remove(sa.Engine, "connect", trace)
        event.remove(sa.Engine, "before_cursor_execute", record)
    assert len(seen) > 80
    tables = {table.name for table in metadata.sorted_tables} - SMALL_TABLES
    scans = []
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        for text, given in seen:
            steps = [step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {text}", given)]
            scans += [(step, text) for step in steps if is_scan(step, tables) and not is_page(text, steps)]
    assert scans == []


def is_scan(step: str, tables: set[str]) -> bool:
    """Return True for a step that reads a whole table, or a whole index other than a partial one."""
    words = step.split()
    return words[0] == "SCAN" and words[1] in tables and words[-1] not in PARTIAL_INDEXES


def is_page(text: str, steps: list[str]) -> bool:
    """Return True for a statement that reads the first rows in the order of an index; it may sort equal ones."""
    return "LIMIT" in text and not any("B-TREE FOR ORDER BY" in step for step in steps)


def test_no_statement_of_a_request_needs_a_scan_of_a_table_of_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.create_database()
    statements: dict[str, Any] = {}

    def record(_connection: object, _cursor: object, text: str, parameters: Any, *_: object) -> None:
        statements.setdefault(text, parameters)

    event.listen(sa.Engine, "before_cursor_execute", record)
    try:
        with opened(tmp_path, {"OPENCLAW_STATE_URL": url}) as gateway:
            ask(gateway, "start")
            statements.clear()
            use_everything(gateway)
            seen = dict(statements)
        scans = list(sequential_scans(url, seen))
    finally:
        event.remove(sa.Engine, "before_cursor_execute", record)
        postgres.drop_database(url)
    assert len(seen) > 20
    assert scans == []


def sequential_scans(url: str, statements: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the scans that the planner cannot avoid: it takes an index where one would do."""
    parsed = sa.make_url(url)
    host = str(parsed.query["host"])
    with psycopg.connect(host=host, user="postgres", dbname=parsed.database, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")
        for text, parameters in statements.items():
            if not text.lstrip().startswith(QUERIES):
                continue
            given = parameters[0] if isinstance(parameters, list) else parameters
            for (line,) in connection.execute(f"EXPLAIN {text}", given).fetchall():
                table = line.partition("Seq Scan on ")[2].split(" ")[0]
                if table and table not in SMALL_TABLES:
                    yield line, text


@pytest.mark.parametrize(("durability", "level"), [("normal", 1), ("full", 2)])
def test_durability_chooses_when_sqlite_flushes(tmp_path: Path, durability: str, level: int) -> None:
    config, _ = parse_config({**scripted_config(), "state": {"durability": durability}})
    locations = Locations(tmp_path / "openclaw.json", tmp_path, dev=False)
    with closing(open_gateway(config, locations, {})) as gateway:
        backend: Any = gateway.storage.database._backend
        assert backend.write(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar_one()) == level


@pytest.mark.parametrize(("durability", "level"), [("normal", "off"), ("full", "on")])
def test_durability_full_overrides_the_default_of_a_postgresql_server(
    tmp_path: Path, postgres: Postgres, durability: str, level: str
) -> None:
    url = postgres.create_database()
    parsed = sa.make_url(url)
    with psycopg.connect(host=str(parsed.query["host"]), user="postgres", dbname="postgres", autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{parsed.database}" SET synchronous_commit = off')
    config, _ = parse_config({**scripted_config(), "state": {"durability": durability}})
    locations = Locations(tmp_path / "openclaw.json", tmp_path, dev=False)
    try:
        with closing(open_gateway(config, locations, {"OPENCLAW_STATE_URL": url})) as gateway:
            shown = gateway.storage.database.read(lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar_one())
    finally:
        postgres.drop_database(url)
    assert shown == level
