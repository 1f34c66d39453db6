"""Runs, session leases, gateways, idempotency keys; totals and titles of sessions."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_GOING_ON = sa.text("state IN ('accepted', 'running')")
_ASKING = sa.text("asked_call_id IS NOT NULL")
_HELD = sa.text("gateway_id IS NOT NULL")

_TITLE_CHARACTERS = 80
_SESSIONS_PER_PAGE = 500
_KEY_PAGE = sa.text("SELECT key FROM sessions WHERE key > :after ORDER BY key LIMIT :most")
_FIRST_MESSAGE = sa.text(
    "SELECT payload FROM entries WHERE session_key = :of_key AND role = 'user' ORDER BY seq LIMIT 1"
)
_SET_TITLE = sa.text("UPDATE sessions SET title = :title WHERE key = :of_key")


def upgrade() -> None:
    """Create the new tables and fill the totals and titles of sessions from their entries."""
    _extend_sessions()
    _set_titles()
    _create_runs()
    _create_lanes()
    op.create_table(
        "gateways",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", _BigInteger, nullable=False),
        sa.Column("process_start", sa.Text, nullable=False),
        sa.Column("beat", _BigInteger, nullable=False),
        sa.Column("started_at_ms", _BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "claims",
        sa.Column("key_hash", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("created_at_ms", _BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("claims_by_age", "claims", ["created_at_ms"])
    if op.get_bind().dialect.name == "sqlite":
        # Versions without revision numbers check this number and refuse unknown ones.
        op.execute("PRAGMA user_version = 3")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, _BigInteger, nullable=False, server_default="0")


def _extend_sessions() -> None:
    for name in ("title", "model", "last_run_id"):
        op.add_column("sessions", sa.Column(name, sa.Text))
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        op.add_column("sessions", _count(name))
    op.add_column("sessions", sa.Column("stateless", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("sessions_by_age", "sessions", ["stateless", "updated_at_ms"])
    op.create_index("sessions_of_agent", "sessions", ["agent_id", "updated_at_ms"])
    of_session = "FROM entries WHERE entries.session_key = sessions.key"
    op.execute(
        "UPDATE sessions SET "  # noqa: S608 - constants
        f"input_tokens = coalesce((SELECT sum(input_tokens) {of_session}), 0), "
        f"output_tokens = coalesce((SELECT sum(output_tokens) {of_session}), 0), "
        f"cached_tokens = coalesce((SELECT sum(cached_tokens) {of_session}), 0), "
        f"model = (SELECT model {of_session} AND model IS NOT NULL ORDER BY seq DESC LIMIT 1), "
        f"last_run_id = (SELECT run_id {of_session} ORDER BY seq DESC LIMIT 1)"
    )
    op.execute("UPDATE sessions SET stateless = true WHERE key LIKE 'agent:' || lower(agent_id) || ':openai:%'")


def _set_titles() -> None:
    """Set each session's title from its first user message, one message in memory at a time: it may contain images."""
    connection = op.get_bind()
    after = ""
    while keys := connection.execute(_KEY_PAGE, {"after": after, "most": _SESSIONS_PER_PAGE}).scalars().all():
        titles = []
        for key in keys:
            payload = connection.execute(_FIRST_MESSAGE, {"of_key": key}).scalar()
            if payload is not None:
                titles.append({"of_key": key, "title": _to_title(payload)})
        if titles:
            connection.execute(_SET_TITLE, titles)
        after = keys[-1]


def _to_title(payload: str) -> str | None:
    text = "".join(part.get("text", "") for part in json.loads(payload)["parts"])
    line = " ".join(text[: _TITLE_CHARACTERS * 4].split())
    line = "".join(character for character in line if character.isprintable())
    return f"{line[: _TITLE_CHARACTERS - 1]}…" if len(line) > _TITLE_CHARACTERS else line or None


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("session_key", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("gateway_id", sa.Text, nullable=False),
        sa.Column("door", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("accepted_at_ms", _BigInteger, nullable=False),
        sa.Column("started_at_ms", _BigInteger),
        sa.Column("ended_at_ms", _BigInteger),
        sa.Column("model", sa.Text),
        sa.Column("stop_reason", sa.Text),
        _count("reply_count"),
        _count("input_tokens"),
        _count("output_tokens"),
        _count("cached_tokens"),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("asked_call_id", sa.Text),
        sa.Column("abort_requested", sa.Boolean, nullable=False, server_default=sa.false()),
        sqlite_with_rowid=False,
    )
    op.create_index("runs_of_session", "runs", ["session_key", "accepted_at_ms"])
    op.create_index("runs_asking", "runs", ["asked_call_id"], sqlite_where=_ASKING, postgresql_where=_ASKING)
    op.create_index("runs_going_on", "runs", ["gateway_id"], sqlite_where=_GOING_ON, postgresql_where=_GOING_ON)


def _create_lanes() -> None:
    op.create_table(
        "lanes",
        sa.Column("session_key", sa.Text, primary_key=True),
        sa.Column("fence", _BigInteger, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("gateway_id", sa.Text),
        sa.Column("wanted_by", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_index("lanes_held", "lanes", ["gateway_id"], sqlite_where=_HELD, postgresql_where=_HELD)
