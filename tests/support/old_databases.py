"""Databases of earlier versions, with sessions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from service.core.messages import Image, Message, Role, Text, Usage, text_message
from service.storage.database import migrations
from service.storage.database.open import FILE_NAME
from service.storage.message_codec import to_payload

#: The tables of the version without summaries, which numbered its schemas with SQLite's `user_version`.
VERSION_1 = (
    """CREATE TABLE sessions (
        "key" TEXT NOT NULL, session_id TEXT NOT NULL, agent_id TEXT NOT NULL, entry_count INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL, PRIMARY KEY ("key"), UNIQUE (session_id)
    ) WITHOUT ROWID""",
    """CREATE TABLE entries (
        id INTEGER NOT NULL, session_key TEXT NOT NULL, seq INTEGER NOT NULL, run_id TEXT NOT NULL, role TEXT NOT NULL,
        payload TEXT NOT NULL, model TEXT, input_tokens INTEGER, output_tokens INTEGER, cached_tokens INTEGER,
        created_at_ms INTEGER NOT NULL, PRIMARY KEY (id), UNIQUE (session_key, seq),
        FOREIGN KEY(session_key) REFERENCES sessions ("key")
    )""",
    "PRAGMA user_version = 1",
)
#: Added by the next version.
VERSION_2 = (
    *VERSION_1[:-1],
    """CREATE TABLE summaries (
        session_key TEXT NOT NULL, covers INTEGER NOT NULL, run_id TEXT NOT NULL, role TEXT NOT NULL,
        payload TEXT NOT NULL, created_at_ms INTEGER NOT NULL, PRIMARY KEY (session_key, covers),
        FOREIGN KEY(session_key) REFERENCES sessions ("key")
    ) WITHOUT ROWID""",
    "PRAGMA user_version = 2",
)


@dataclass(frozen=True)
class OldTurn:
    run_id: str
    messages: tuple[Message, ...]
    model: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class OldSession:
    """A session with its expected metadata after migration."""

    key: str
    agent_id: str
    turns: tuple[OldTurn, ...]
    title: str | None
    stateless: bool = False

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(message for turn in self.turns for message in turn.messages)

    @property
    def model(self) -> str | None:
        return next((turn.model for turn in reversed(self.turns) if turn.model), None)

    @property
    def tokens(self) -> tuple[int, int, int]:
        used = [turn.usage for turn in self.turns if turn.usage]
        return sum(u.input_tokens for u in used), sum(u.output_tokens for u in used), sum(u.cached_tokens for u in used)


def _user_message(text: str) -> tuple[Message, ...]:
    return text_message(Role.USER, text), text_message(Role.ASSISTANT, "yes")


_PICTURE = Message(Role.USER, (Image("data:image/png;base64,AAAA"), Text("What is"), Text(" this?")))
SESSIONS = (
    OldSession(
        "agent:main:team",
        "main",
        (
            OldTurn(
                "r1", (text_message(Role.SYSTEM, "Be kind."), *_user_message("  Chào\nbạn! ")), "a/1", Usage(3, 4, 1)
            ),
            OldTurn("r2", _user_message("again"), "b/2", Usage(10, 20, 5)),
            OldTurn("r3", _user_message("and again")),
        ),
        "Chào bạn!",
    ),
    OldSession("agent:main:openai:1", "main", (OldTurn("r4", (_PICTURE,), "a/1", Usage(1, 2)),), "What is this?", True),
    OldSession(
        "agent:main:openai-user:ann",
        "main",
        (OldTurn("r5", _user_message("long " * 100), "a/1", Usage(7, 7)),),
        "long " * 15 + "long…",
    ),
    OldSession(
        "agent:Main_2:x", "Main_2", (OldTurn("r6", (text_message(Role.ASSISTANT, "Hi"),), "c", Usage(0, 1)),), None
    ),
    OldSession(
        "agent:main_2:openai:2", "Main_2", (OldTurn("r7", _user_message("\x00"), "c", Usage(0, 1)),), None, True
    ),
)


def connect(url: str | None, state_dir: Path) -> sa.Engine:
    """Connect directly to the database of a gateway with this `state.url`."""
    return sa.create_engine(url or f"sqlite:///{state_dir / FILE_NAME}", poolclass=sa.NullPool)


def script() -> ScriptDirectory:
    directory = str(Path(migrations.__file__).parent)
    return ScriptDirectory(directory, version_locations=[directory])


def upgrade(connection: sa.Connection, revision: str) -> None:
    """Migrate a database to one of the revisions."""
    known = script()
    environment = EnvironmentContext(
        Config(), known, fn=lambda current, _context: known._upgrade_revs(revision, current)
    )
    environment.configure(connection=connection, transactional_ddl=True)
    environment.run_migrations()


def make_old(connection: sa.Connection, schema: str) -> None:
    """Create an empty database of an earlier version: `user_version 1` or 2, or a revision's number."""
    if schema.startswith("user_version"):
        for statement in VERSION_1 if schema.endswith("1") else VERSION_2:
            connection.exec_driver_sql(statement)
    else:
        upgrade(connection, schema)


def fill(connection: sa.Connection, schema: str) -> None:
    """Insert `SESSIONS` into the columns that `schema` has."""
    for at_ms, session in enumerate(SESSIONS, start=1_700_000_000_000):
        row: dict[str, Any] = {
            "key": session.key,
            "session_id": f"id of {session.key}",
            "agent_id": session.agent_id,
            "entry_count": len(session.messages),
            "created_at_ms": at_ms,
            "updated_at_ms": at_ms + 1_000,
        }
        if schema >= "0002" and not schema.startswith("user_version"):
            row |= dict(zip(("input_tokens", "output_tokens", "cached_tokens"), session.tokens, strict=True))
            row |= {"title": session.title, "model": session.model, "last_run_id": session.turns[-1].run_id}
            row |= {"stateless": session.stateless}
        _insert(connection, "sessions", row)
        seq = 0
        for turn in session.turns:
            for message in turn.messages:
                last = message is turn.messages[-1] and turn.usage
                _insert(
                    connection,
                    "entries",
                    {
                        "session_key": session.key,
                        "seq": seq,
                        "run_id": turn.run_id,
                        "role": message.role.value,
                        "payload": to_payload(message),
                        "model": turn.model if last else None,
                        "input_tokens": last.input_tokens if last else None,
                        "output_tokens": last.output_tokens if last else None,
                        "cached_tokens": last.cached_tokens if last else None,
                        "created_at_ms": at_ms,
                    },
                )
                seq += 1


def _insert(connection: sa.Connection, table: str, row: dict[str, Any]) -> None:
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in row]
    connection.execute(sa.table(table, *columns).insert(), row)
