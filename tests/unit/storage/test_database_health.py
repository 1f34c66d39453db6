"""Database health: failed and stalled writes, damage, lost files and servers that do not respond."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import pytest
import sqlalchemy as sa
from gevent import GreenletExit
from support.chat import ask, error_of, text_of
from support.databases import OwnServer
from support.live import live_gateway, scripted_config
from support.polling import until
from support.transcripts import Transcripts

from service.core.concurrency import Event, deadline, sleep, spawn
from service.core.messages import Role, Usage, text_message
from service.storage.database import health
from service.storage.database.caller_schema import login_failures
from service.storage.database.database import MAX_OPERATIONS_PER_COMMIT, Database, Job, SingleOperation
from service.storage.database.errors import StoreError
from service.storage.database.open import FILE_NAME, open_file
from service.storage.database.schema import entries
from service.storage.runs.records import AcceptedRun, Protocol

GENEROUS_SECONDS = 30
LARGE = "x" * 200_000
SESSION = {"x-openclaw-session-key": "files"}


class Fill(SingleOperation[None]):
    """Write a row of a given size."""

    def __init__(self, address: str, text: str = "[]") -> None:
        self.row = {"address": address, "failed_at_ms": text, "locked_until_ms": 0, "last_at_ms": 0}

    def apply(self, connection: sa.Connection) -> None:
        connection.execute(login_failures.insert().values(self.row))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sessions.sqlite"


def set_on_writer(database: Database, pragma: str) -> None:
    database._backend.write(lambda connection: connection.exec_driver_sql(f"PRAGMA {pragma}").all())


def test_failed_write_fails_check_until_next_success(path: Path) -> None:
    with closing(open_file(path)) as database:
        database.check()
        pages = database.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
        set_on_writer(database, f"max_page_count = {pages + 4}")
        with pytest.raises(StoreError, match="full"):
            database.write(Fill("large", LARGE))
        with pytest.raises(StoreError, match=r"The last write to the .* failed: database or disk is full"):
            database.check()
        set_on_writer(database, "max_page_count = 1000000")
        database.write(Fill("small"))
        database.check()


def test_refused_value_does_not_fail_check(database: Database) -> None:
    database.write(Fill("once"))
    with pytest.raises(StoreError):
        database.write(Fill("once"))
    database.check()


def test_stalled_write_fails_check(path: Path) -> None:
    with closing(open_file(path)) as database, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = spawn(database.write, Fill("waiting"))
        sleep(health.STALLED_SECONDS / 2)
        database.check()
        sleep(health.STALLED_SECONDS / 2 + 0.3)
        with pytest.raises(StoreError, match="has been waiting for 5 s"):
            database.check()
        other.execute("ROLLBACK")
        writing.get()
        database.check()


def damage(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [page] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_damaged_page_fails_check_for_good(path: Path) -> None:
    with closing(Transcripts.open(path)) as store:
        for number in range(3):
            said = [text_message(Role.USER, LARGE)]
            store.append_turn(f"agent:main:{number}", "main", f"r{number}", said, usage=Usage(1, 1, 0), model="m/a")
    damage(path, "entries")
    with closing(open_file(path)) as database:
        database.check()  # the damaged page is not read yet
        with pytest.raises(StoreError, match="malformed"):
            database.fetch(sa.select(entries), {})
        database.write(Fill("elsewhere"))
        with pytest.raises(StoreError, match=r"is damaged .* Restore a backup"):
            database.check()


def remove_file(path: Path) -> None:
    path.unlink()


def remove_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def remove_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def replace_file(path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.replace(path)


def replace_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("old"))
    shutil.copytree(path.parent.with_name("old"), path.parent)


@pytest.mark.parametrize("lose", [remove_file, remove_log, remove_directory, replace_file, replace_directory])
def test_lost_file_refuses_reads_writes_and_stateless_runs(path: Path, lose: Callable[[Path], None]) -> None:
    with closing(Transcripts.open(path)) as store:
        store.append_turn("k", "main", "r", [text_message(Role.USER, "a")], usage=Usage(1, 1, 0), model="m/a")
        lose(path)
        for use in (
            lambda: store.get_session("k"),
            lambda: store.database.write(Fill("lost")),
            lambda: store.storage.ledger.open(
                AcceptedRun("s", "alone", "main", Protocol.HTTP, 0, stateless=True), None
            ),
            lambda: store.storage.ledger.open(AcceptedRun("t", "k", "main", Protocol.HTTP, 0, stateless=False), None),
            store.database.check,
        ):
            with pytest.raises(StoreError, match="removed or replaced") as refused:
                use()
            assert refused.value.code == "storage_unavailable"


class Interrupted:
    """A database whose first commit is interrupted on request."""

    def __init__(self, backend: Any, interruption: type[BaseException]) -> None:
        self._backend = backend
        self._interruption: type[BaseException] | None = interruption
        self.committing = Event()
        self.interrupt = Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def write(self, job: Job[Any]) -> Any:
        if self._interruption is None:
            return self._backend.write(job)
        interruption, self._interruption = self._interruption, None
        self.committing.set()
        self.interrupt.wait()
        raise interruption


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("interruption", [GreenletExit, gevent.Timeout])
def test_interrupted_commit_leaves_no_other_write_waiting(
    path: Path, interruption: type[BaseException], *, closes: bool
) -> None:
    count = MAX_OPERATIONS_PER_COMMIT + 1
    with closing(open_file(path)) as database, deadline(GENEROUS_SECONDS):
        backend = database._backend = Interrupted(database._backend, interruption)
        interrupted = spawn(database.write, Fill("interrupted"))
        backend.committing.wait()
        waiting = [spawn(database.write, Fill(str(number))) for number in range(count)]
        until(lambda: len(database._waiting) == count)
        if closes:
            spawn(database.close)
            until(lambda: database._closed)
        backend.interrupt.set()
        with pytest.raises(StoreError, match=interruption.__name__):
            interrupted.get()
        for write in waiting:
            write.get()
    with closing(open_file(path)) as database:
        assert len(database.fetch(sa.select(login_failures), {})) == count


def test_log_lost_before_the_first_write_is_noticed(path: Path) -> None:
    with closing(open_file(path)) as database:
        remove_log(path)
        with pytest.raises(StoreError, match="removed or replaced"):
            database.write(Fill("lost"))


def test_readiness_of_paused_server_is_refused_in_time_and_recovers(own_server: OwnServer, tmp_path: Path) -> None:
    url = own_server.postgres.create_database()
    env = {"OPENCLAW_STATE_URL": url}
    with live_gateway(tmp_path, scripted_config(), env=env) as gateway, gateway.client() as client:
        assert client.get("/readyz").status_code == 200
        with own_server.paused():
            for _ in range(3):
                assert error_of(client.get("/readyz"))[:2] == (503, "not_ready")
                assert client.get("/healthz").status_code == 200
        until(lambda: client.get("/readyz").status_code == 200)


def test_requests_of_gateway_without_its_file_are_refused(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config()) as gateway, gateway.client() as client:
        assert text_of(ask(client, "kept", headers=SESSION)) == "kept"
        (gateway.state_dir / FILE_NAME).unlink()
        for headers in ({}, SESSION):
            assert error_of(ask(client, "lost", headers=headers))[:2] == (503, "storage_unavailable")
        assert error_of(client.get("/readyz"))[:2] == (503, "not_ready")
