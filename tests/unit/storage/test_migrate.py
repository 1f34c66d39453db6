"""Migrations: databases of earlier versions are upgraded atomically; unusable ones are reported and left unchanged."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from support.concurrent_open import context, start_opening
from support.databases import Postgres
from support.old_databases import SESSIONS, VERSION_2, connect, fill, make_old, script
from support.polling import until
from support.transcripts import Transcripts

from service.core.messages import Role, Usage, text_message
from service.storage.database.errors import StoreError
from service.storage.database.open import FILE_NAME, open_database
from service.storage.database.schema import HEAD, metadata

SCHEMAS = ("user_version 1", "user_version 2", *(f"{number:04}" for number in range(1, int(HEAD))))

GENEROUS_SECONDS = 60


@pytest.fixture
def database_url(empty_database_url: str | None) -> str | None:
    return empty_database_url


def prepare(url: str | None, state_dir: Path, schema: str) -> None:
    with closing(connect(url, state_dir).connect()) as connection, connection.begin():
        make_old(connection, schema)
        fill(connection, schema)


def differences(url: str | None, state_dir: Path) -> list[object]:
    """Compare a migrated database with the schema; return the differences."""
    options = {"compare_type": True, "compare_server_default": True}
    with closing(connect(url, state_dir).connect()) as connection:
        found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        # The first versions did not name this constraint, and SQLite would have to copy all entries to name it.
        nameless = {"name": None, "column_names": ["session_key", "seq"]}
        if nameless in sa.inspect(connection).get_unique_constraints("entries"):
            named = [one for one in found if one[0] == "add_constraint" and one[1].name == "entries_in_order"]
            assert len(named) == 1
            found.remove(named[0])
    return found


def revisions(url: str | None, state_dir: Path) -> list[str]:
    with closing(connect(url, state_dir).connect()) as connection:
        return list(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars())


def assert_all_is_there(store: Transcripts) -> None:
    for session in SESSIONS:
        assert store.load_conversation(session.key) == session.messages
        known = store.get_session(session.key)
        assert known is not None
        assert (known.title, known.model, known.stateless) == (session.title, session.model, session.stateless)
        assert (known.usage.input_tokens, known.usage.output_tokens, known.usage.cached_tokens) == session.tokens
        assert known.last_run_id == session.turns[-1].run_id
        assert known.message_count == len(session.messages)


def test_revisions_form_one_chain_ending_at_head() -> None:
    known = script()
    assert known.get_heads() == [HEAD]
    numbers = [f"{number:04}" for number in range(1, int(HEAD) + 1)]
    assert [one.revision for one in known.walk_revisions()] == numbers[::-1]
    assert [one.down_revision for one in known.walk_revisions()] == [*numbers[-2::-1], None]


def test_new_database_matches_schema(database_url: str | None, tmp_path: Path) -> None:
    open_database(database_url, tmp_path).close()
    assert differences(database_url, tmp_path) == []
    assert revisions(database_url, tmp_path) == [HEAD]


def anatomy(path: Path) -> dict[str, object]:
    """Describe the tables and indices of the database file `path`."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return {
            "user_version": connection.execute("PRAGMA user_version").fetchall(),
            **{
                name: ("WITHOUT ROWID" in sql, _columns(connection, name)) if kind == "table" else _condensed(sql)
                for kind, name, sql in found
            },
        }


def _condensed(sql: str) -> str:
    return "".join(sql.replace('"', "").split())


def _columns(connection: sqlite3.Connection, table: str) -> tuple[object, ...]:
    columns = sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({table})"))
    keys = [row[2:] for row in connection.execute(f"PRAGMA foreign_key_list({table})")]
    unique = sorted(
        [row[2] for row in connection.execute(f"PRAGMA index_info({index[1]})")]
        for index in connection.execute(f"PRAGMA index_list({table})")
        if index[2]
    )
    return columns, keys, unique


def test_new_file_equals_migrated_empty_file(tmp_path: Path) -> None:
    open_database(None, tmp_path / "new").close()
    (tmp_path / "migrated").mkdir()
    with closing(connect(None, tmp_path / "migrated").connect()) as connection, connection.begin():
        make_old(connection, HEAD)
    assert anatomy(tmp_path / "new" / FILE_NAME) == anatomy(tmp_path / "migrated" / FILE_NAME)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_data_of_earlier_versions_is_kept(database_url: str | None, tmp_path: Path, schema: str) -> None:
    if database_url is not None and schema.startswith("user_version"):
        return  # these versions supported SQLite only
    prepare(database_url, tmp_path, schema)
    for _ in range(2):
        with closing(Transcripts(open_database(database_url, tmp_path))) as store:
            assert_all_is_there(store)
    with closing(Transcripts(open_database(database_url, tmp_path))) as store:
        said = text_message(Role.USER, "new")
        store.append_turn(SESSIONS[0].key, "main", "new", [said], usage=Usage(1, 1, 1), model="new")
        assert store.load_conversation(SESSIONS[0].key) == (*SESSIONS[0].messages, said)
        store.append_summary(SESSIONS[0].key, "s", said, kept=1)
    assert differences(database_url, tmp_path) == []
    assert revisions(database_url, tmp_path) == [HEAD]


def test_session_title_is_same_for_new_and_migrated_session(database_url: str | None, tmp_path: Path) -> None:
    with closing(Transcripts(open_database(database_url, tmp_path))) as store:
        for session in SESSIONS:
            store.append_turn(session.key, session.agent_id, session.key, session.messages, usage=Usage(), model="m")
            known = store.get_session(session.key)
            assert known is not None
            assert known.title == session.title


def test_one_of_concurrent_starts_migrates(database_url: str | None, tmp_path: Path) -> None:
    prepare(database_url, tmp_path, "0001")
    start = context.Barrier(4)
    logs = [tmp_path / f"{number}.log" for number in range(start.parties)]
    processes = [start_opening(database_url, tmp_path, log, start) for log in logs]
    for process in processes:
        process.join(GENEROUS_SECONDS)
    assert [process.exitcode for process in processes] == [0] * start.parties
    upgrades = [log.read_text().count("Running upgrade") for log in logs]
    assert sorted(upgrades) == [0, 0, 0, int(HEAD) - 1]
    with closing(Transcripts(open_database(database_url, tmp_path))) as store:
        assert_all_is_there(store)


def test_opening_waits_for_a_process_that_writes_before_the_database_is_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.5, other.execute, ("COMMIT",))
        release.start()
        with closing(Transcripts(open_database(None, tmp_path))) as store:
            assert store.get_session("k") is None
        release.join()


LARGE = """
    WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 99999)
    INSERT INTO entries (session_key, seq, run_id, role, payload, model, input_tokens, output_tokens, created_at_ms)
    SELECT 'agent:main:' || (n / 20), n % 20, 'run ' || (n / 2), CASE n % 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
           '{"v":1,"parts":[{"text":"message ' || n || '"}]}', 'a/m', 2, 1, n
    FROM numbers
"""


def make_large(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in VERSION_2:
            connection.execute(statement)
        connection.execute(LARGE)
        connection.execute(
            "INSERT INTO sessions SELECT session_key, 'id ' || session_key, 'main', count(*), 1, 2 "
            "FROM entries GROUP BY session_key"
        )


def snapshot(path: Path) -> tuple[object, ...]:
    """Snapshot of a file's schema and row counts."""
    with closing(sqlite3.connect(path)) as connection:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        version = connection.execute("PRAGMA user_version").fetchall()
        counts = [connection.execute(f"SELECT count(*) FROM {name}").fetchall() for name in ("sessions", "entries")]
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    return schema, version, counts


def open_and_kill(directory: Path, after_seconds: float) -> float:
    """Open a directory's database in a process that is killed after a delay; return how long it ran."""
    start = context.Barrier(2)
    process = start_opening(None, directory, directory / "log", start)
    start.wait(GENEROUS_SECONDS)
    began_at = time.monotonic()
    process.join(after_seconds)
    seconds = time.monotonic() - began_at
    process.kill()
    process.join()
    return seconds


def test_process_killed_during_migration_leaves_old_or_new_schema(tmp_path: Path) -> None:
    directories = [tmp_path / str(number) for number in range(6)]
    for directory in directories:
        directory.mkdir()
    make_large(directories[0] / FILE_NAME)
    for directory in directories[1:]:
        shutil.copy(directories[0] / FILE_NAME, directory / FILE_NAME)
    before = snapshot(directories[0] / FILE_NAME)
    seconds = open_and_kill(directories[0], GENEROUS_SECONDS)
    after = snapshot(directories[0] / FILE_NAME)
    assert (after[0] != before[0], after[2]) == (True, before[2])
    seen = []
    for number, directory in enumerate(directories[1:]):
        open_and_kill(directory, seconds * (number + 0.5) / 5)
        seen.append(snapshot(directory / FILE_NAME))
    assert before in seen
    assert all(state in (before, after) for state in seen)
    interrupted = directories[1:][seen.index(before)]
    open_database(None, interrupted).close()
    assert snapshot(interrupted / FILE_NAME) == after
    with closing(sqlite3.connect(interrupted / FILE_NAME)) as connection:
        migrated = connection.execute(
            "SELECT title, input_tokens, last_run_id FROM sessions WHERE key = 'agent:main:7'"
        )
        assert migrated.fetchall() == [("message 140", 40, "run 79")]


def server_snapshot(connection: psycopg.Connection) -> list[object]:
    """Snapshot of a database's schema and row counts."""
    queries = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT conname, contype FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
        "SELECT 'version', version_num FROM alembic_version",
        "SELECT 'sessions', count(*)::text FROM sessions UNION ALL SELECT 'entries', count(*)::text FROM entries",
    )
    return [sorted(map(tuple, connection.execute(query).fetchall())) for query in queries]


def is_true(connection: psycopg.Connection, question: str) -> bool:
    return connection.execute(question).fetchone() == (True,)


OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
STUCK = f"SELECT count(*) > 0 {OTHERS} AND wait_event_type = 'Lock' AND backend_xid IS NOT NULL"
ALONE = f"SELECT count(*) = 0 {OTHERS}"


@pytest.mark.parametrize(
    ("schema", "held"),
    [
        ("0001", "entries IN ACCESS EXCLUSIVE MODE"),
        ("0001", "alembic_version IN EXCLUSIVE MODE"),
        ("0002", "sessions IN ROW EXCLUSIVE MODE"),
    ],
    ids=["amid a revision", "at a revision's end", "amid the last revision"],
)
def test_process_killed_during_server_migration_leaves_old_schema(
    postgres: Postgres, tmp_path: Path, schema: str, held: str
) -> None:
    url = postgres.create_database()
    prepare(url, tmp_path, schema)
    server = f"host={postgres.socket_dir} user=postgres dbname={sa.make_url(url).database}"
    with psycopg.connect(server, autocommit=True) as watching, psycopg.connect(server) as holding:
        before = server_snapshot(watching)
        holding.execute(f"LOCK TABLE {held}")
        start = context.Barrier(2)
        process = start_opening(url, tmp_path, tmp_path / "log", start)
        start.wait(GENEROUS_SECONDS)
        until(lambda: is_true(watching, STUCK))  # it has changed the schema and is blocked
        assert f"Running upgrade {schema} -> " in (tmp_path / "log").read_text()
        process.kill()
        process.join()
        holding.close()
        until(lambda: is_true(watching, ALONE))
        assert server_snapshot(watching) == before
    for _ in range(2):
        with closing(Transcripts(open_database(url, tmp_path))) as store:
            assert_all_is_there(store)
    assert revisions(url, tmp_path) == [HEAD]
    assert differences(url, tmp_path) == []


def test_newer_schema_is_refused_and_left_unchanged(database_url: str | None, tmp_path: Path) -> None:
    open_database(database_url, tmp_path).close()
    with closing(connect(database_url, tmp_path).connect()) as connection, connection.begin():
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(sa.text("ALTER TABLE sessions ADD COLUMN mood TEXT"))
    with pytest.raises(StoreError, match=f"version 9999, but this program supports versions up to {HEAD}. Run a newer"):
        open_database(database_url, tmp_path)
    assert revisions(database_url, tmp_path) == ["9999"]
    assert len(differences(database_url, tmp_path)) == 1


def test_unknown_user_version_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreError, match="version 7, but this program supports"):
        open_database(None, tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []


def refusal_of(url: str, tmp_path: Path) -> str:
    """Collect every text of the error for an unusable database, causes included."""
    with pytest.raises(StoreError) as caught:
        open_database(url, tmp_path)
    assert list(tmp_path.iterdir()) == []
    texts: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql+psycopg://ann:hunter2@127.0.0.1:1/db", "onnection refused"),
        ("postgresql+psycopg://ann@127.0.0.1:1/db?password=hunter2", "onnection refused"),
        ("postgresql+psycopg://ann:hunter2@nowhere.invalid/db", "nowhere.invalid"),
        ("postgresql+psycopg://ann:hunter2@127.0.0.1:port/db", "is not a URL"),
        ("postgresql+psycopg:/ann:hunter2@127.0.0.1/db", "is not a URL"),
        ("hunter2", "is not a URL"),
        ("mysql://ann:hunter2@127.0.0.1/db", 'driver "mysql" is not supported'),
        ("postgresql+psycopg://ann:long@hunter2@127.0.0.1:1/db", "%40"),
        ("postgresql+psycopg://ann:long@hunter2/1@127.0.0.1:1/db", "%40"),
        ("postgresql+psycopg://ann:1/hunter2@127.0.0.1:1/db", "onnection refused"),
        ("postgresql+psycopg://ann:hunter2@127.0.0.1:1/db?nothing=1", "nothing"),
    ],
)
def test_unreachable_database_is_reported_without_password(url: str, reason: str, tmp_path: Path) -> None:
    text = refusal_of(url, tmp_path)
    assert reason in text
    assert "hunter2" not in text


def test_wrong_password_is_reported_without_it(postgres: Postgres, tmp_path: Path) -> None:
    host = postgres.socket_dir
    with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute("CREATE ROLE ann LOGIN PASSWORD 'the right one'")
        [rules] = connection.execute("SHOW hba_file").fetchone() or ()
        path = Path(rules)
        path.write_text("local all ann scram-sha-256\n" + path.read_text())
        connection.execute("SELECT pg_reload_conf()")
    for password, reason in (("hunter2", "password authentication failed"), ("the right one", "permission denied")):
        text = refusal_of(f"postgresql+psycopg://ann:{password}@/postgres?host={host}", tmp_path)
        assert reason in text
        assert password not in text


def test_missing_database_is_reported(postgres: Postgres, tmp_path: Path) -> None:
    text = refusal_of(f"postgresql+psycopg://postgres:hunter2@/absent?host={postgres.socket_dir}", tmp_path)
    assert 'database "absent" does not exist' in text
    assert "hunter2" not in text
