"""Database faults (full, locked, disconnected): a clear error or a retry, and no turn lost or repeated."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from support.chat import ask, error_of, text_of
from support.databases import OwnServer, Postgres
from support.live import live_gateway, scripted_config
from support.polling import until
from support.processes import started
from support.transcripts import Transcripts, new_uuid

from service.core.concurrency import Cancelled, CancelScope, deadline, sleep, spawn
from service.core.messages import Role, Usage, text_message
from service.core.signals import Committed, committed
from service.storage.database.database import MAX_OPERATIONS_PER_COMMIT, Database, Job
from service.storage.database.errors import StoreError
from service.storage.database.open import open_database, open_file
from service.storage.database.schema import runs
from service.storage.runs.beginning import AcceptRun
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.storage import Storage

KEY = "agent:main:faults"
GENEROUS_SECONDS = 30
FILE_LIMIT_BYTES = 1_000_000


def say(store: Transcripts, text: str, key: str = KEY) -> None:
    said = [text_message(Role.USER, text), text_message(Role.ASSISTANT, text)]
    store.append_turn(key, "main", f"run {text[:40]}", said, usage=Usage(1, 1, 0), model="m/a")


def new_run(store: Transcripts, run_id: str, key: str = KEY) -> AcceptedRun:
    return AcceptedRun(run_id, key, "main", Protocol.HTTP, store.storage.ledger.now_ms(), stateless=False)


def outcome(text: str) -> RunOutcome:
    said = text_message(Role.USER, text), text_message(Role.ASSISTANT, text)
    return RunOutcome(RunState.OK, Usage(1, 1, 0), "m/a", "stop", messages=said)


def turns_of(store: Transcripts, key: str = KEY) -> list[str]:
    """Return the turns of a session; fails for an incomplete one."""
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


def test_full_disk_refuses_whole_turns_until_space_is_free(path: Path) -> None:
    with closing(Transcripts.open(path)) as store:
        say(store, "before")
        pages = store.database.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
        set_on_writer(store, f"max_page_count = {pages + 4}")
        with pytest.raises(StoreError, match="full") as refused:
            say(store, "too much " + "x" * 100_000)
        assert refused.value.code == "storage_unavailable"
        assert turns_of(store) == ["before"]
        set_on_writer(store, "max_page_count = 1000000")
        say(store, "after")
        assert turns_of(store) == ["before", "after"]
        until(lambda: "running" not in states(store).values())


def test_short_lock_only_delays(path: Path) -> None:
    with closing(Transcripts(open_file(path))) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        set_on_writer(store, "busy_timeout = 20")
        other.execute("BEGIN IMMEDIATE")
        waiting = [spawn(say, store, f"turn {number}", f"key-{number}") for number in range(5)]
        sleep(0.3)
        assert not any(greenlet.ready() for greenlet in waiting)
        other.execute("ROLLBACK")
        for greenlet in waiting:
            wait_for(greenlet)
        assert [turns_of(store, f"key-{number}") for number in range(5)] == [[f"turn {number}"] for number in range(5)]


def test_lasting_lock_is_clear_error(path: Path) -> None:
    database = open_file(path, retry_seconds=0.2)
    with closing(Transcripts(database)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        set_on_writer(store, "busy_timeout = 20")
        other.execute("BEGIN IMMEDIATE")
        with deadline(GENEROUS_SECONDS), pytest.raises(StoreError, match="database is locked") as refused:
            say(store, "refused")
        assert refused.value.code == "storage_unavailable"
        other.execute("ROLLBACK")
        say(store, "after")
        assert turns_of(store) == ["after"]


def test_refused_runs_do_not_ask_a_locked_database_again_each(path: Path) -> None:
    database = open_file(path, retry_seconds=0.2)
    with closing(Transcripts(database)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        set_on_writer(store, "busy_timeout = 20")
        other.execute("BEGIN IMMEDIATE")
        with noted_commits() as tried:
            refused = [spawn(refusal_of, store, f"key-{number}") for number in range(50)]
            until(lambda: len(tried) >= 3)
        operations = [event.operations for event in tried]
        assert operations == [50, 50, *[1] * (len(tried) - 2)]  # begin, retract, and retry
        assert {greenlet.get() for greenlet in refused} == {"storage_unavailable"}
        other.execute("ROLLBACK")
        say(store, "after", "key-7")
        until(lambda: states(store) == {"run after": "ok"})


@contextmanager
def noted_commits() -> Iterator[list[Committed]]:
    """Collect the transactions that end during the block."""
    noted: list[Committed] = []
    committed.connect(noted.append)
    try:
        yield noted
    finally:
        committed.disconnect(noted.append)


def refusal_of(store: Transcripts, key: str) -> str:
    with pytest.raises(StoreError) as refused:
        store.storage.ledger.open(new_run(store, key, key), None)
    return refused.value.code


def test_writes_that_have_waited_for_failing_ones_are_not_tried_as_long_again(path: Path) -> None:
    database = open_file(path, retry_seconds=3)
    with closing(Transcripts(database)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        set_on_writer(store, "busy_timeout = 1")
        other.execute("BEGIN IMMEDIATE")
        with noted_commits() as tried:
            runs = [new_run(store, str(number)) for number in range(3 * MAX_OPERATIONS_PER_COMMIT)]
            waiting = [spawn(refused_write, store, AcceptRun(run, "gateway")) for run in runs]
            for greenlet in waiting:
                wait_for(greenlet)
        first, _, last = tried
        assert last.seconds < first.seconds / 2


def refused_write(store: Transcripts, operation: AcceptRun) -> None:
    with pytest.raises(StoreError):
        store.database.write(operation)


def test_write_is_committed_after_caller_is_interrupted(path: Path) -> None:
    with closing(Transcripts.open(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        run = store.storage.ledger.open(new_run(store, "run"), None)
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
        say(store, "after")  # committed after it
        assert turns_of(store) == ["said", "after"]


def test_close_commits_pending_writes(path: Path) -> None:
    store = Transcripts.open(path)
    opened = [store.storage.ledger.open(new_run(store, str(number), f"key-{number}"), None) for number in range(5)]
    waiting = [spawn(run.finish, outcome(f"said {number}")) for number, run in enumerate(opened)]
    sleep(0)
    store.close()
    for greenlet in waiting:
        wait_for(greenlet)
    with closing(Transcripts.open(path)) as again:
        assert [turns_of(again, f"key-{number}") for number in range(5)] == [[f"said {number}"] for number in range(5)]


@pytest.fixture
def cut(postgres: Postgres, tmp_path: Path) -> Iterator[Transcripts]:
    """A store whose connections `cut_all` can drop."""
    url = postgres.create_database()
    store = Transcripts(open_database(url, tmp_path))
    yield store
    store.close()
    postgres.drop_database(url)


def cut_all(postgres: Postgres, store: Transcripts) -> None:
    """Drop every connection of the store's database."""
    name = engine_of(store).url.database
    with psycopg.connect(host=postgres.socket_dir, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])


def engine_of(store: Transcripts) -> sa.Engine:
    engine: sa.Engine = store.database._backend._engine  # type: ignore[attr-defined]
    return engine


def test_dropped_connections_are_reopened(postgres: Postgres, cut: Transcripts) -> None:
    for number in range(6):
        say(cut, f"turn {number}")
        cut_all(postgres, cut)
        assert turns_of(cut) == [f"turn {earlier}" for earlier in range(number + 1)]
        cut_all(postgres, cut)


def test_turn_retried_after_lost_connection_is_stored_once(postgres: Postgres, cut: Transcripts) -> None:
    cuts: list[bool] = []

    @event.listens_for(engine_of(cut), "commit")
    def cut_first(_connection: sa.Connection) -> None:
        if len(cuts) % 2 == 0:
            cut_all(postgres, cut)
        cuts.append(True)

    for number in range(3):
        say(cut, f"turn {number}")
    assert len(cuts) >= 6
    assert turns_of(cut) == ["turn 0", "turn 1", "turn 2"]
    assert set(states(cut).values()) == {"ok"}


class Forgetful:
    """A database whose connection breaks right after every other commit, before the acknowledgement."""

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


def test_unacknowledged_commit_is_not_repeated(cut: Transcripts) -> None:
    forgetful = Forgetful(cut.database._backend)
    store = Transcripts(Database(forgetful))
    for number in range(5):
        say(store, f"turn {number}")
    assert forgetful.forgotten >= 10
    assert turns_of(cut) == [f"turn {number}" for number in range(5)]
    assert set(states(cut).values()) == {"ok"}
    store.storage.close()


def test_clock_set_back_keeps_message_order(database: Database) -> None:
    now = [1_700_000_000.0]
    store = Transcripts(database, clock=lambda: now[0])
    for number in range(4):
        say(store, f"turn {number}")
        now[0] -= 3600
    assert turns_of(store) == ["turn 0", "turn 1", "turn 2", "turn 3"]
    key = IdempotencyKey("key", "fingerprint")
    first = store.storage.claims.claim(key, new_run(store, "first"), store.storage.membership.id)
    now[0] -= 3600
    second = store.storage.claims.claim(key, new_run(store, "second"), store.storage.membership.id)
    assert (first.is_own, second.is_own, second.run_id) == (True, False, "first")
    store.storage.close()


LIMITED = (
    "import os, resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def test_gateway_on_full_disk_reports_it_and_keeps_stored_turns(tmp_path: Path) -> None:
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
        turns = turns_of(store, "agent:main:full")
    assert [text.partition(" ")[0] for text in turns] == [*map(str, answered), "after"]


def test_server_restart_loses_and_repeats_no_turn(own_server: OwnServer, tmp_path: Path) -> None:
    url = own_server.postgres.create_database()
    over, answered, failed = threading.Event(), [], []

    def talk(client: httpx.Client, name: str) -> None:
        for number in itertools.count():
            if over.is_set():
                return
            text = f"{name} {number}"
            response = ask(client, text, headers={"x-openclaw-session-key": name})
            if response.status_code == 200:
                answered.append(text_of(response))
            else:
                assert error_of(response)[:2] in ((503, "storage_unavailable"), (503, "session_lost")), response.text
                failed.append(text)

    with (
        live_gateway(tmp_path, scripted_config(), env={"OPENCLAW_STATE_URL": url}) as gateway,
        gateway.client() as client,
        ThreadPoolExecutor(3) as pool,
    ):
        talks = [pool.submit(talk, client, f"talker{number}") for number in range(3)]
        try:
            for _ in range(2):
                time.sleep(0.3)
                own_server.stop()
                own_server.start()
            time.sleep(0.5)
            so_far = len(answered)
            time.sleep(1.5)
            assert len(answered) > so_far
        finally:
            over.set()
        for each in talks:
            each.result()
    with closing(Transcripts(open_database(url, tmp_path))) as store:
        stored = [text for number in range(3) for text in turns_of(store, f"agent:main:talker{number}")]
    assert len(stored) == len(set(stored))
    assert set(answered) <= set(stored)
    assert set(stored) <= {*answered, *failed}


PAUSED = """
from gevent import monkey
monkey.patch_all()
import sys, time, uuid
from pathlib import Path
from service.core.errors import GatewayError
from service.core.concurrency import sleep
from service.core.messages import Role, Usage, text_message
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.storage import Storage
from service.storage.cluster import membership
from service.storage.database.open import open_database
from service.core.processes.identity import ProcessIdentity

here = membership.this_process()
membership.this_process = lambda: ProcessIdentity("elsewhere", here.pid, here.start)  # as on another host
database = open_database(sys.argv[1], Path(sys.argv[2]))
storage = Storage(database, clock=time.time, new_id=lambda: str(uuid.uuid4()), heartbeat_seconds=float(sys.argv[3]))
storage.membership.join()
run = AcceptedRun("paused", "agent:main:faults", "main", Protocol.HTTP, 1, stateless=False)
opened = storage.ledger.open(run, None)
print("opened", flush=True)
sys.stdin.readline()
said = [text_message(Role.USER, "paused"), text_message(Role.ASSISTANT, "paused")]
try:
    opened.finish(RunOutcome(RunState.OK, Usage(), "m", "stop", messages=tuple(said)))
    print("stored", flush=True)
except GatewayError as error:
    print(error.code, flush=True)
"""


@contextmanager
def holding(url: str, directory: Path, heartbeat_seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Start another process that holds the session."""
    command = [sys.executable, "-c", PAUSED, url, str(directory), str(heartbeat_seconds)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with started(command, cwd=Path(__file__).parents[3], **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "opened\n"
            yield process
        finally:
            process.kill()


def test_paused_process_that_lost_its_session_writes_nothing(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database()
    with holding(url, tmp_path, 0.2) as process:
        process.send_signal(signal.SIGSTOP)
        state_options: dict[str, Any] = {"clock": time.time, "new_id": new_uuid, "heartbeat_seconds": 0.2}
        storage = Storage(open_database(url, tmp_path), **state_options)
        storage.membership.join()
        run = AcceptedRun("second", KEY, "main", Protocol.HTTP, 2, stateless=False)
        with deadline(GENEROUS_SECONDS):
            storage.ledger.open(run, GENEROUS_SECONDS).finish(outcome("second"))
        process.send_signal(signal.SIGCONT)
        answer, _ = process.communicate("go on\n", timeout=GENEROUS_SECONDS)
        assert answer == "session_lost\n"
        assert [message.text for message in storage.transcripts.load_conversation(KEY)] == ["second", "second"]
        record = storage.records.get("paused")
        assert record is not None
        assert record.state is RunState.INTERRUPTED
        storage.close()


def test_sessions_of_process_killed_on_host_are_released_at_once(database_url: str | None, tmp_path: Path) -> None:
    env = {"OPENCLAW_STATE_URL": database_url} if database_url else {}
    config = scripted_config()
    config["agents"]["list"][1]["model"] = "scripted/silent"
    headers = {"x-openclaw-session-key": "agent:beta:killed"}
    with live_gateway(tmp_path, config, env=env) as gateway, ThreadPoolExecutor(1) as pool:
        database = open_database(database_url, gateway.state_dir)

        def active() -> list[str]:
            return [row.state for row in database.fetch(sa.select(runs.c.state), {})]

        with gateway.client() as client:
            asked = pool.submit(ask, client, "for ever", model="openclaw/beta", headers=headers)
            until(lambda: active() == ["running"])
            gateway.process.kill()
            with pytest.raises(httpx.TransportError):
                asked.result()
        gateway.process.wait()
    with closing(Transcripts(database)) as store:
        assert active() == ["interrupted"]
        store.storage.ledger.open(new_run(store, "next", "agent:beta:killed"), 0.0).finish(outcome("next"))
        assert turns_of(store, "agent:beta:killed") == ["next"]


def test_run_in_preparation_can_be_aborted(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database()
    engine = sa.create_engine(url)
    with (
        live_gateway(tmp_path, scripted_config(), env={"OPENCLAW_STATE_URL": url}) as gateway,
        gateway.client() as client,
        ThreadPoolExecutor(1) as pool,
        engine.connect() as other,
    ):
        headers = {"x-openclaw-session-key": "prepared"}
        assert text_of(ask(client, "before", headers=headers)) == "before"
        [before] = other.execute(sa.select(runs.c.id)).scalars().all()
        other.exec_driver_sql("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE")  # the conversation cannot be read
        asked = pool.submit(ask, client, "hello", headers=headers)
        active = sa.select(runs.c.id).where(runs.c.id != before)
        found = until(lambda: other.execute(active).scalars().all())
        try:
            assert client.post(f"/v1/runs/{found[0]}/cancel").status_code < 300
            assert error_of(asked.result(10))[1] == "run_aborted"
        finally:
            other.rollback()
        assert other.execute(active).scalars().all() == []
    engine.dispose()
