"""What the database does to a store: full, locked, cut off. A clear error or a retry; nothing lost, nothing double."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from chat import ask, error_of, text_of
from databases import Postgres
from live import live_gateway, scripted_config
from sqlalchemy import event
from transcripts import Transcripts

from service.concurrency import Cancelled, CancelScope, deadline, sleep, spawn
from service.messages import Role, Usage, text_message
from service.sessions.claims import IdempotencyKey
from service.sessions.records import NewRun, RunOutcome, RunState
from service.state.database import Database, Job
from service.state.errors import StoreError
from service.state.opening import open_database, open_file
from service.state.schema import runs

KEY = "agent:main:faults"
GENEROUS_SECONDS = 30
FILE_LIMIT_BYTES = 1_000_000


def say(store: Transcripts, text: str, key: str = KEY) -> None:
    said = [text_message(Role.USER, text), text_message(Role.ASSISTANT, text)]
    store.append_turn(key, "main", f"run {text[:40]}", said, usage=Usage(1, 1, 0), model="m/a")


def new_run(store: Transcripts, run_id: str, key: str = KEY) -> NewRun:
    return NewRun(run_id, key, "main", "test", store.state.ledger.now_ms(), stateless=False)


def outcome(text: str) -> RunOutcome:
    said = text_message(Role.USER, text), text_message(Role.ASSISTANT, text)
    return RunOutcome(RunState.OK, Usage(1, 1, 0), "m/a", "stop", messages=said)


def told(store: Transcripts, key: str = KEY) -> list[str]:
    """The turns of a session, each of which must be whole."""
    texts = [message.text for message in store.load_conversation(key)]
    assert texts[::2] == texts[1::2]
    return texts[::2]


def states(store: Transcripts) -> dict[str, str]:
    return {row.id: row.state for row in store.database.fetch(sa.select(runs.c.id, runs.c.state), {})}


def set_on_writer(store: Transcripts, pragma: str) -> None:
    store.database._backend.write(lambda connection: connection.exec_driver_sql(f"PRAGMA {pragma}").all())


def wait_for(greenlet: Any) -> None:
    with deadline(GENEROUS_SECONDS):
        greenlet.get()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def test_a_full_disk_refuses_whole_turns_and_is_forgotten_when_there_is_room(path: Path) -> None:
    with closing(Transcripts.open(path)) as store:
        say(store, "before")
        pages = store.database.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
        set_on_writer(store, f"max_page_count = {pages + 4}")
        with pytest.raises(StoreError, match="full") as refused:
            say(store, "too much " + "x" * 100_000)
        assert refused.value.code == "storage_unavailable"
        assert told(store) == ["before"]
        set_on_writer(store, "max_page_count = 1000000")
        say(store, "after")
        assert told(store) == ["before", "after"]
        with deadline(GENEROUS_SECONDS):
            while "running" in states(store).values():
                sleep(0.05)


def test_a_lock_that_passes_is_only_a_delay(path: Path) -> None:
    with closing(Transcripts(open_file(path))) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        set_on_writer(store, "busy_timeout = 20")
        other.execute("BEGIN IMMEDIATE")
        waiting = [spawn(say, store, f"turn {number}", f"key-{number}") for number in range(5)]
        sleep(0.3)
        assert not any(greenlet.ready() for greenlet in waiting)
        other.execute("ROLLBACK")
        for greenlet in waiting:
            wait_for(greenlet)
        assert [told(store, f"key-{number}") for number in range(5)] == [[f"turn {number}"] for number in range(5)]


def test_a_lock_that_does_not_pass_is_a_clear_error(path: Path) -> None:
    database = open_file(path, patience_seconds=0.2)
    with closing(Transcripts(database)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        set_on_writer(store, "busy_timeout = 20")
        other.execute("BEGIN IMMEDIATE")
        with deadline(GENEROUS_SECONDS), pytest.raises(StoreError, match="database is locked") as refused:
            say(store, "refused")
        assert refused.value.code == "storage_unavailable"
        other.execute("ROLLBACK")
        say(store, "after")
        assert told(store) == ["after"]


def test_a_caller_that_is_interrupted_does_not_take_its_turn_back(path: Path) -> None:
    with closing(Transcripts.open(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        run = store.state.ledger.open(new_run(store, "run"), None)
        scope, interrupted = CancelScope(), []

        def finish() -> None:
            try:
                with scope:
                    run.finish(outcome("said"))
            except Cancelled:
                interrupted.append(True)

        other.execute("BEGIN IMMEDIATE")
        waiting = spawn(finish)
        sleep(0.05)
        scope.cancel()
        wait_for(waiting)
        other.execute("ROLLBACK")
        assert interrupted
        say(store, "after")  # comes behind it
        assert told(store) == ["said", "after"]


def test_closing_finishes_what_waits(path: Path) -> None:
    store = Transcripts.open(path)
    opened = [store.state.ledger.open(new_run(store, str(number), f"key-{number}"), None) for number in range(5)]
    waiting = [spawn(run.finish, outcome(f"said {number}")) for number, run in enumerate(opened)]
    sleep(0)
    store.close()
    for greenlet in waiting:
        wait_for(greenlet)
    with closing(Transcripts.open(path)) as again:
        assert [told(again, f"key-{number}") for number in range(5)] == [[f"said {number}"] for number in range(5)]


@pytest.fixture
def cut(postgres: Postgres, tmp_path: Path) -> Iterator[Transcripts]:
    """A store whose database can be reached by `cut_all`."""
    url = postgres.create_database()
    store = Transcripts(open_database(url, tmp_path))
    yield store
    store.close()
    postgres.drop_database(url)


def cut_all(postgres: Postgres, store: Transcripts) -> None:
    """Cut every connection of the store's database."""
    name = engine_of(store).url.database
    with psycopg.connect(host=postgres.socket_dir, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])


def engine_of(store: Transcripts) -> sa.Engine:
    engine: sa.Engine = store.database._backend._engine  # type: ignore[attr-defined]
    return engine


def test_connections_that_are_cut_are_made_again(postgres: Postgres, cut: Transcripts) -> None:
    for number in range(6):
        say(cut, f"turn {number}")
        cut_all(postgres, cut)
        assert told(cut) == [f"turn {earlier}" for earlier in range(number + 1)]
        cut_all(postgres, cut)


def test_a_turn_cut_before_its_commit_is_stored_once(postgres: Postgres, cut: Transcripts) -> None:
    cuts = []

    @event.listens_for(engine_of(cut), "commit")
    def cut_first(_connection: sa.Connection) -> None:
        if len(cuts) % 2 == 0:
            cut_all(postgres, cut)
        cuts.append(True)

    for number in range(3):
        say(cut, f"turn {number}")
    assert len(cuts) >= 6
    assert told(cut) == ["turn 0", "turn 1", "turn 2"]
    assert set(states(cut).values()) == {"ok"}


class Forgetful:
    """The database, whose connection breaks right after every other commit: nobody hears that it was made."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.forgotten = 0
        self._writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def write(self, job: Job[Any]) -> Any:
        result = self._backend.write(job)
        self._writes += 1
        if self._writes % 2:
            self.forgotten += 1
            self._backend.write(
                lambda connection: connection.execute(sa.select(sa.func.pg_terminate_backend(sa.func.pg_backend_pid())))
            )
        return result


def test_a_commit_nobody_heard_of_is_not_made_twice(cut: Transcripts) -> None:
    forgetful = Forgetful(cut.database._backend)
    store = Transcripts(Database(forgetful))
    for number in range(5):
        say(store, f"turn {number}")
    assert forgetful.forgotten >= 10
    assert told(cut) == [f"turn {number}" for number in range(5)]
    assert set(states(cut).values()) == {"ok"}
    store.state.close()


def test_a_clock_that_jumps_back_changes_no_order(database: Database) -> None:
    now = [1_700_000_000.0]
    store = Transcripts(database, clock=lambda: now[0])
    for number in range(4):
        say(store, f"turn {number}")
        now[0] -= 3600
    assert told(store) == ["turn 0", "turn 1", "turn 2", "turn 3"]
    key = IdempotencyKey("key", "fingerprint")
    first = store.state.claims.claim(key, new_run(store, "first"), store.state.membership.id)
    now[0] -= 3600
    second = store.state.claims.claim(key, new_run(store, "second"), store.state.membership.id)
    assert (first.is_own, second.is_own, second.run_id) == (True, False, "first")
    store.state.close()


LIMITED = (
    "import os, resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def test_a_live_gateway_without_room_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    before = (sys.executable, "-c", LIMITED, str(FILE_LIMIT_BYTES))
    answered = []
    with live_gateway(tmp_path, scripted_config(), before=before) as gateway, gateway.client() as client:
        headers = {"x-openclaw-session-key": "full"}
        for number in range(40):
            response = ask(client, f"{number} " + "x" * 100_000, headers=headers)
            if response.status_code != 200:
                assert error_of(response) == (503, "storage_unavailable", None)
                break
            answered.append(number)
        else:
            pytest.fail("the limit was never met")
        streamed = ask(client, "streamed " + "x" * 100_000, headers=headers, stream=True)
        assert "storage_unavailable" in streamed.text
        assert client.get("/healthz").status_code == 200
    with live_gateway(tmp_path, scripted_config()) as gateway, gateway.client() as client:
        assert text_of(ask(client, "after", headers=headers)) == "after"
    with closing(Transcripts(open_database(None, gateway.state_dir))) as store:
        turns = told(store, "agent:main:full")
    assert [text.partition(" ")[0] for text in turns] == [*map(str, answered), "after"]
