"""Transcript store: atomic ordered turns, durability across crashes, group commits that fail individually."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from support.processes import started
from support.transcripts import Transcripts, new_uuid

from service.core.concurrency import deadline, spawn
from service.core.messages import Image, Message, Role, Text, ToolCall, Usage, text_message
from service.storage.database.database import MAX_OPERATIONS_PER_COMMIT, Database
from service.storage.database.errors import StoreError
from service.storage.database.open import open_database
from service.storage.database.schema import HEAD, entries
from service.storage.message_codec import from_payload, to_payload
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState

GENEROUS_SECONDS = 30
NO_USAGE = Usage()
TOO_MANY_TOKENS = Usage(input_tokens=2**63)  # exceeds SQLite's integers, so that the turn cannot be stored
KEY = "agent:main:nguyễn"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
messages = st.builds(
    Message,
    role=st.sampled_from(Role),
    parts=st.lists(st.builds(Text, texts) | st.builds(Image, texts, st.sampled_from(["auto", "low"])), max_size=3).map(
        tuple
    ),
    name=st.none() | texts,
    tool_calls=st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2).map(tuple),
    tool_call_id=st.none() | texts,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sessions.db"


@pytest.fixture
def store(database: Database) -> Iterator[Transcripts]:
    """A store on each kind of database."""
    with closing(Transcripts(database)) as store:
        yield store


@pytest.fixture
def file_store(path: Path) -> Iterator[Transcripts]:
    """A store in an SQLite file that tests inspect."""
    with closing(Transcripts.open(path, clock=lambda: 1_700_000_000.25, new_id=map(str, count(1)).__next__)) as store:
        yield store


def turn(*said: str) -> tuple[Message, ...]:
    return tuple(text_message(Role.USER, text) for text in said)


def append(
    store: Transcripts, key: str, said: tuple[Message, ...], usage: Usage = NO_USAGE, run_id: str | None = None
) -> None:
    store.append_turn(key, "main", run_id or new_uuid(), said, usage=usage, model="openai/gpt")


def finish(greenlets: list[Any]) -> None:
    with deadline(GENEROUS_SECONDS):
        for greenlet in greenlets:
            greenlet.get()


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


@given(messages)
def test_message_round_trips(message: Message) -> None:
    assert from_payload(message.role.value, to_payload(message)) == message


def test_message_of_newer_version_is_refused() -> None:
    with pytest.raises(StoreError, match="version 2"):
        from_payload("user", '{"v": 2, "parts": []}')


def test_lone_surrogate_is_refused_before_anything_is_stored(store: Transcripts) -> None:
    with pytest.raises(StoreError, match="surrogate"):
        append(store, KEY, turn("fine", "\ud800"))
    assert store.load_conversation(KEY) == ()


def test_tables_hold_roles_times_and_usage(file_store: Transcripts, path: Path) -> None:
    append(file_store, KEY, turn("q", "a"), Usage(3, 4, 1), run_id="run-1")
    columns = "key, agent_id, entry_count, created_at_ms, updated_at_ms, title, model, last_run_id, stateless"
    assert rows(path, f"SELECT {columns} FROM sessions") == [
        (KEY, "main", 2, 1_700_000_000_250, 1_700_000_000_250, "q", "openai/gpt", "run-1", 0)
    ]
    assert rows(path, "SELECT input_tokens, output_tokens, cached_tokens FROM sessions") == [(3, 4, 1)]
    columns = "session_key, seq, run_id, role, model, input_tokens, output_tokens, cached_tokens, created_at_ms"
    assert rows(path, f"SELECT {columns} FROM entries ORDER BY seq") == [
        (KEY, 0, "run-1", "user", None, None, None, None, 1_700_000_000_250),
        (KEY, 1, "run-1", "user", "openai/gpt", 3, 4, 1, 1_700_000_000_250),
    ]


operations = st.lists(
    st.tuples(st.sampled_from(["agent:main:a", "agent:main:ă", "b"]), st.lists(messages, min_size=1, max_size=3)),
    max_size=12,
)


@given(st.lists(operations, min_size=1, max_size=3))
@settings(max_examples=25)
def test_store_matches_model_across_restarts(
    lives: list[list[tuple[str, list[Message]]]],
) -> None:
    model: dict[str, tuple[Message, ...]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for life in lives:
            with closing(Transcripts.open(Path(directory) / "sessions.db")) as store:
                assert store.load_conversation("unknown") == ()
                for key, said in life:
                    append(store, key, tuple(said))
                    model[key] = model.get(key, ()) + tuple(said)
                    assert store.load_conversation(key) == model[key]
                assert {key: store.load_conversation(key) for key in model} == model


def commits(path: Path) -> int:
    """Count the transactions in the write-ahead log: a commit frame has the size of the database."""
    log = path.with_name(path.name + "-wal").read_bytes()
    frame_bytes = 24 + int.from_bytes(log[8:12])
    return sum(1 for at in range(32, len(log), frame_bytes) if any(log[at + 4 : at + 8]))


def test_concurrent_turns_share_commit(file_store: Transcripts, path: Path) -> None:
    for number in range(10):
        append(file_store, KEY, turn(str(number)))
    alone = commits(path)
    assert alone >= 10
    finish([spawn(append, file_store, f"key-{number}", turn("a")) for number in range(MAX_OPERATIONS_PER_COMMIT + 50)])
    assert commits(path) <= alone + 5
    assert rows(path, "SELECT count(*) FROM entries") == [(10 + MAX_OPERATIONS_PER_COMMIT + 50,)]


def test_concurrent_turns_stay_contiguous(store: Transcripts) -> None:
    def talk(number: int) -> None:
        for step in range(5):
            append(store, f"key-{number % 4}", turn("first", "second"), run_id=f"{number}-{step}")

    finish([spawn(talk, number) for number in range(40)])
    columns: list[sa.ColumnElement[int]] = [sa.func.min(entries.c.seq), sa.func.max(entries.c.seq), sa.func.count()]
    by_run = sa.select(*columns).group_by(entries.c.run_id)
    turns = store.database.read(lambda connection: connection.execute(by_run).all())
    assert len(turns) == 200
    for row in turns:
        first = row[0]
        assert (first % 2, tuple(row)) == (0, (first, first + 1, 2))
    for number in range(4):
        assert len(store.load_conversation(f"key-{number}")) == 100


def test_turn_that_cannot_be_stored_fails_alone(store: Transcripts) -> None:
    failed = []

    def talk(number: int) -> None:
        usage = TOO_MANY_TOKENS if number % 5 == 0 else NO_USAGE
        try:
            append(store, f"key-{number % 2}", turn(str(number)), usage)
        except StoreError as error:
            failed.append((number, str(error)))

    finish([spawn(talk, number) for number in range(20)])
    assert sorted(number for number, _ in failed) == [0, 5, 10, 15]
    assert all("cannot be written: " in message for _, message in failed)
    stored = [message.text for key in ("key-0", "key-1") for message in store.load_conversation(key)]
    assert sorted(stored, key=int) == [str(number) for number in range(20) if number % 5]


def test_failing_database_fails_turns_until_it_recovers(file_store: Transcripts, path: Path) -> None:
    append(file_store, KEY, turn("before"))
    rename = "ALTER TABLE {} RENAME TO {}"
    rows(path, rename.format("entries", "elsewhere"))
    failed = []

    def talk(said: str) -> None:
        with pytest.raises(StoreError, match="no such table") as caught:
            append(file_store, KEY, turn(said))
        failed.append((said, str(caught.value.__cause__)))

    finish([spawn(talk, said) for said in ("one secret", "two secrets")])
    assert [said for said, _ in failed] == ["one secret", "two secrets"]
    assert not any("secret" in cause for _, cause in failed)  # errors are logged, message text must not be
    rows(path, rename.format("elsewhere", "entries"))
    append(file_store, KEY, turn("after"))
    assert [message.text for message in file_store.load_conversation(KEY)] == ["before", "after"]


def test_readers_are_not_blocked_by_writer(file_store: Transcripts, path: Path) -> None:
    append(file_store, KEY, turn("before"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = spawn(append, file_store, KEY, turn("after"))
        for _ in range(10):
            assert [message.text for message in file_store.load_conversation(KEY)] == ["before"]
        assert not waiting.ready()
        other.execute("ROLLBACK")
    finish([waiting])
    assert [message.text for message in file_store.load_conversation(KEY)] == ["before", "after"]


def test_search_applies_before_limit(store: Transcripts) -> None:
    for number, key in enumerate(("agent:main:50%_off", "agent:main:50x_off", "agent:main:later")):
        append(store, key, turn("hi"), run_id=f"r{number}")

    def found(search: str, since_ms: int = 0, agent_id: str | None = None) -> list[str]:
        return [one.key for one in store.list_sessions(agent_id, 1, search=search, since_ms=since_ms)]

    assert found("50%_o") == found("50%_o", agent_id="main") == ["agent:main:50%_off"]
    assert found("50x_") == ["agent:main:50x_off"]
    assert found("50__off") == found("50%_o", agent_id="beta") == found("50%_o", 2**50) == []
    assert found("\0") == found("x" * 1_000_000) == []


def test_stores_sharing_database_see_each_others_turns(
    store: Transcripts, database_url: str | None, tmp_path: Path
) -> None:
    with closing(Transcripts(open_database(database_url, tmp_path))) as other:
        for number in range(6):
            append((store, other)[number % 2], KEY, turn(str(number)))
        assert store.load_conversation(KEY) == other.load_conversation(KEY) == turn(*"012345")


def test_session_continued_during_first_answer_keeps_both_turns(store: Transcripts) -> None:
    first = AcceptedRun("first", KEY, "main", Protocol.HTTP, store.storage.ledger.now_ms(), stateless=True)
    opened = store.storage.ledger.open(first, None)
    append(store, KEY, turn("continued"))
    opened.finish(RunOutcome(RunState.OK, messages=turn("begun"), reply_count=1))
    assert store.load_conversation(KEY) == turn("continued", "begun")


def test_second_close_is_no_op_and_closed_store_raises(store: Transcripts) -> None:
    store.close()
    store.close()
    for use in (lambda: append(store, KEY, turn("a")), lambda: store.load_conversation(KEY), store.check):
        with pytest.raises(StoreError, match="closed"):
            use()


def test_files_are_readable_only_by_owner(file_store: Transcripts, path: Path) -> None:
    append(file_store, KEY, turn("a"))
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    assert modes == {"sessions.db": 0o600, "sessions.db-wal": 0o600, "sessions.db-shm": 0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_readable_file_is_made_private_and_existing_directory_is_unchanged(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "sessions.db"
    path.touch(mode=0o644)
    Transcripts.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_connection_is_configured_as_documented(file_store: Transcripts, path: Path) -> None:
    def pragmas(connection: Any) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert file_store.database._backend.write(pragmas) == ["wal", 1, 1, 5_000, 0]
    assert file_store.database._backend.read(pragmas) == ["wal", 1, 1, 5_000, 1]
    assert rows(path, "SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_failed_schema_creation_leaves_nothing(path: Path) -> None:
    path.parent.mkdir()
    rows(path, "CREATE TABLE lanes (something_else TEXT)")
    with pytest.raises(StoreError, match="already exists"):
        Transcripts.open(path)
    assert rows(path, "SELECT name FROM sqlite_master") == [("lanes",)]
    assert rows(path, "PRAGMA user_version") == [(0,)]


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database " * 100)
    for path, problem in ((tmp_path / "text", "not a database"), (tmp_path, "unable to open")):
        with pytest.raises(StoreError, match=problem):
            Transcripts.open(path)
    assert tmp_path.stat().st_mode & 0o700 == 0o700
    with pytest.raises(StoreError, match="cannot be used"):
        Transcripts.open(tmp_path / "text" / "sessions.db")


def test_unreadable_or_replaced_database_fails_check(file_store: Transcripts, path: Path) -> None:
    file_store.check()
    path.rename(path.with_suffix(".old"))
    with pytest.raises(StoreError, match="removed or replaced"):
        file_store.check()
    path.touch()
    with pytest.raises(StoreError, match="removed or replaced"):
        file_store.check()


APPENDING_PROCESS = """
from gevent import monkey
monkey.patch_all()
import sys
from itertools import count
from pathlib import Path
from service.core.concurrency import sleep, spawn
from service.core.messages import Role, Usage, text_message
sys.path.insert(0, "tests")
from support.transcripts import Transcripts

def talk(key):
    for number in count():
        said = [text_message(Role.USER, f"{number} {part} {'x' * 500}") for part in range(3)]
        store.append_turn(key, "main", f"{key} {number}", said, usage=Usage(), model="m")
        sys.stdout.write(f"{key} {number}\\n")
        sys.stdout.flush()

store = Transcripts.open(Path(sys.argv[1]))
for greenlet in [spawn(talk, f"key-{number}") for number in range(8)]:
    greenlet.join()
"""


def test_killed_process_loses_no_committed_turn_and_leaves_none_partial(path: Path) -> None:
    command = [sys.executable, "-c", APPENDING_PROCESS, str(path)]
    with started(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(400)]
        process.send_signal(signal.SIGKILL)
        printed += process.stdout.readlines()
    acknowledged = [tuple(line.split()) for line in printed if line.endswith("\n")]
    assert process.returncode == -signal.SIGKILL
    assert len(acknowledged) >= 400
    with closing(Transcripts.open(path)) as store:
        for key in {key for key, _ in acknowledged}:
            texts = [message.text.split()[:2] for message in store.load_conversation(key)]
            turns = len(texts) // 3
            assert texts == [[str(number), str(part)] for number in range(turns) for part in range(3)]
            assert turns >= sum(1 for other, _ in acknowledged if other == key)
