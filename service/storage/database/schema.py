"""The tables of the Gateway's database.

They change only together with a migration in `migrations/`; `HEAD` is the last one's revision.
Times are milliseconds since the epoch. Tables about callers are in `service.storage.database.caller_schema`.
"""

from __future__ import annotations

import sqlalchemy as sa

#: The revision of the schema that this program reads and writes.
HEAD = "0023"  # estimates for budgets

#: An integer of 64 bits.
BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()

#: SQL list of the states of runs without an answer, as in the index of them.
FAILED_STATES = "'error', 'aborted', 'interrupted'"


def count_column(name: str) -> sa.Column[int]:
    """Build a column of a count."""
    return sa.Column(name, BigInteger, nullable=False, server_default="0")


def _partial_index(name: str, *columns: str, where: str) -> sa.Index:
    """Build a partial index. PostgreSQL gets it from the migrations: its option here would import its dialect."""
    return sa.Index(name, *columns, sqlite_where=sa.text(where))


#: One row per session key; `entry_count` is also the `seq` of the next entry. `title` is taken from the first message.
#: The token counts are totals over all turns, and so is `cost_nano`, in nano-dollars, NULL if that of a turn is not
#: known; `model` and `last_run_id` are those of the last turn. A stateless session belongs to a request without a
#: session; it becomes an ordinary one when it is continued. Most have a row in `stateless_turns` instead.
#: `resends`: its HTTP client sends the whole conversation each time. `branched`: it has rows in `branches`. `owner`
#: follows from the key (`service.storage.sessions.keys.owner_of`) and is there to list by.
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("session_id", sa.Text, nullable=False, unique=True),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("entry_count", BigInteger, nullable=False),
    sa.Column("created_at_ms", BigInteger, nullable=False),
    sa.Column("updated_at_ms", BigInteger, nullable=False),
    sa.Column("title", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("last_run_id", sa.Text),
    count_column("input_tokens"),
    count_column("output_tokens"),
    count_column("cached_tokens"),
    sa.Column("cost_nano", BigInteger),
    sa.Column("stateless", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("resends", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("branched", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("owner", sa.Text),
    sa.Index("sessions_by_age", "stateless", "updated_at_ms"),
    sa.Index("sessions_of_agent", "agent_id", "updated_at_ms"),
    sa.Index("sessions_by_start", "stateless", "created_at_ms", "session_id"),
    sa.Index("sessions_of_agent_by_start", "agent_id", "stateless", "created_at_ms", "session_id"),
    _partial_index("sessions_of_owner", "owner", "updated_at_ms", where="owner IS NOT NULL"),
    _partial_index(
        *("sessions_of_owner_by_start", "owner", "stateless", "created_at_ms", "session_id"), where="owner IS NOT NULL"
    ),
    sqlite_with_rowid=False,
)

#: Append-only, one row per message, `seq` counting from 0 in each session. `payload` is the message as JSON
#: (`service.storage.message_codec`). `model` and the token counts cover the whole turn and are set on its last
#: entry only, so that a sum over entries counts every token once. `digest` is that of the conversation up to the entry,
#: as a client sees it; entries that it does not see have none.
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("id", BigInteger, primary_key=True, autoincrement=True),
    sa.Column("session_key", sa.Text, sa.ForeignKey("sessions.key"), nullable=False),
    sa.Column("seq", BigInteger, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("model", sa.Text),
    sa.Column("input_tokens", BigInteger),
    sa.Column("output_tokens", BigInteger),
    sa.Column("cached_tokens", BigInteger),
    sa.Column("created_at_ms", BigInteger, nullable=False),
    sa.Column("digest", sa.Text),
    sa.UniqueConstraint("session_key", "seq", name="entries_in_order"),
    _partial_index("entries_by_digest", "session_key", "digest", where="digest IS NOT NULL"),
)

#: Where branches begin: the entry `first_seq` follows `parent_seq` (NULL: nothing), every other entry the one before it
#: (`service.storage.sessions.tree`).
branches = sa.Table(
    "branches",
    metadata,
    sa.Column("session_key", sa.Text, sa.ForeignKey("sessions.key"), primary_key=True),
    sa.Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    sa.Column("parent_seq", BigInteger),
    sqlite_with_rowid=False,
)

#: Compaction summaries: the message in `payload` replaces the entries before number `covers`, on paths with the entry
#: `covers - 1`. Of a path's rows that with the largest `covers` applies; the entries are kept.
summaries = sa.Table(
    "summaries",
    metadata,
    sa.Column("session_key", sa.Text, sa.ForeignKey("sessions.key"), primary_key=True),
    sa.Column("covers", BigInteger, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("created_at_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: One row per run (`service.storage.runs.records`): its state and result; messages are in `entries`. `gateway_id` is
#: the gateway that executes it, `reply_count` how many of the turn's last entries are the run's output. The row of
#: a stateless run is written with its turn; `asked_call_id` is the first call of the caller's functions that it ended
#: with, if it has steps that the caller did not see, `asked_after` a digest of the conversation before. `step` counts
#: the calls of the model, `tool` is the one that runs now. `detached` runs have rows in `run_events`, and so have those
#: that were `followed` from another process, from then on.
#: `reasoning_tokens` are those of the output, `cost_nano` are nano-dollars; NULL if not known. `owner` is that of the
#: session.
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("session_key", sa.Text, nullable=False),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("gateway_id", sa.Text, nullable=False),
    sa.Column("door", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("accepted_at_ms", BigInteger, nullable=False),
    sa.Column("started_at_ms", BigInteger),
    sa.Column("ended_at_ms", BigInteger),
    sa.Column("model", sa.Text),
    sa.Column("stop_reason", sa.Text),
    count_column("reply_count"),
    count_column("input_tokens"),
    count_column("output_tokens"),
    count_column("cached_tokens"),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("asked_call_id", sa.Text),
    sa.Column("abort_requested", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("asked_after", sa.Text),
    sa.Column("first_output_at_ms", BigInteger),
    sa.Column("step", BigInteger),
    sa.Column("metadata", sa.Text),
    sa.Column("response", sa.Text),
    sa.Column("detached", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("tool", sa.Text),
    sa.Column("reasoning_tokens", BigInteger),
    sa.Column("cost_nano", BigInteger),
    sa.Column("followed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("owner", sa.Text),
    sa.Index("runs_of_session", "session_key", "accepted_at_ms"),
    sa.Index("runs_by_start", "accepted_at_ms", "id"),
    sa.Index("runs_of_agent", "agent_id", "accepted_at_ms", "id"),
    _partial_index("runs_of_owner", "owner", "accepted_at_ms", "id", where="owner IS NOT NULL"),
    _partial_index("runs_failed", "state", "accepted_at_ms", "id", where=f"state IN ({FAILED_STATES})"),
    _partial_index("runs_asking", "asked_call_id", where="asked_call_id IS NOT NULL"),
    _partial_index("runs_going_on", "gateway_id", where="state IN ('accepted', 'running')"),
    sqlite_with_rowid=False,
)

#: Events of detached and followed runs in batches (`service.storage.runs.events`): those with the numbers `first` to
#: `last`. Of other runs with an idempotency key those of the reasoning, if the answer shows it.
run_events = sa.Table(
    "run_events",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("first", BigInteger, primary_key=True, autoincrement=False),
    sa.Column("last", BigInteger, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

#: Where the end of a run is still to be sent (`service.storage.runs.webhooks`): from `due_at_ms` on, which the process
#: that sends it puts off before each of its `attempts`.
webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("attempts", BigInteger, nullable=False),
    sa.Column("due_at_ms", BigInteger, nullable=False),
    sa.Index("webhooks_due", "due_at_ms"),
    sqlite_with_rowid=False,
)

#: The session, run and messages of a stateless request that was answered: one row, moved to `sessions`, `runs` and
#: `entries` when the session is continued. `messages` is a JSON list (`service.storage.message_codec`). Runs that
#: claimed an idempotency key, those that a follow-up finds by a tool call, and stored responses are not stored here.
stateless_turns = sa.Table(
    "stateless_turns",
    metadata,
    sa.Column("id", BigInteger, primary_key=True),
    sa.Column("session_key", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("gateway_id", sa.Text, nullable=False),
    sa.Column("door", sa.Text, nullable=False),
    sa.Column("accepted_at_ms", BigInteger, nullable=False),
    sa.Column("ended_at_ms", BigInteger, nullable=False),
    sa.Column("title", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("stop_reason", sa.Text),
    sa.Column("entry_count", BigInteger, nullable=False),
    sa.Column("reply_count", BigInteger, nullable=False),
    sa.Column("input_tokens", BigInteger, nullable=False),
    sa.Column("output_tokens", BigInteger, nullable=False),
    sa.Column("cached_tokens", BigInteger, nullable=False),
    sa.Column("cost_nano", BigInteger),
    sa.Column("messages", sa.Text, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Index("stateless_turns_by_key", "session_key", unique=True),
    sa.Index("stateless_turns_by_run", "run_id", unique=True),
    sa.Index("stateless_turns_by_age", "ended_at_ms"),
    sa.Index("stateless_turns_of_agent", "agent_id", "ended_at_ms"),
    _partial_index("stateless_turns_of_owner", "owner", "ended_at_ms", where="owner IS NOT NULL"),
    _partial_index("stateless_runs_of_owner", "owner", "run_id", where="owner IS NOT NULL"),
)

#: Session leases, one row per session that ever had a run; "lanes" is their former name, as "door" is that of a run's
#: protocol. `run_id` and `gateway_id` are set while a run holds the session; `fence` is the fencing token, incremented
#: with every change of holder. `wanted_by` is a waiting gateway. `new_since_ms` is set until the session has a turn.
lanes = sa.Table(
    "lanes",
    metadata,
    sa.Column("session_key", sa.Text, primary_key=True),
    sa.Column("fence", BigInteger, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("gateway_id", sa.Text),
    sa.Column("wanted_by", sa.Text),
    sa.Column("new_since_ms", BigInteger),
    _partial_index("lanes_held", "gateway_id", where="gateway_id IS NOT NULL"),
    _partial_index("lanes_wanted", "wanted_by", where="wanted_by IS NOT NULL"),
    _partial_index("lanes_new", "new_since_ms", "session_key", where="new_since_ms IS NOT NULL"),
    sqlite_with_rowid=False,
)

#: Tool calls that need a person's decision (`service.storage.runs.approvals`). `gateway_id` is the gateway that waits,
#: `subject` what an `allow-session` covers: later calls of the tool in the session with the same subject.
approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("session_key", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("gateway_id", sa.Text, nullable=False),
    sa.Column("tool", sa.Text, nullable=False),
    sa.Column("arguments", sa.Text, nullable=False),
    sa.Column("tool_call_id", sa.Text, nullable=False),
    sa.Column("subject", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at_ms", BigInteger, nullable=False),
    sa.Column("expires_at_ms", BigInteger, nullable=False),
    sa.Column("decision", sa.Text),
    sa.Column("decided_by", sa.Text),
    sa.Column("decided_at_ms", BigInteger),
    sa.Index("approvals_of_session", "session_key", "subject"),
    sa.Index("approvals_of_run", "run_id"),
    sa.Index("approvals_by_state", "state", "created_at_ms"),
    _partial_index("approvals_by_decision", "decided_at_ms", where="decided_at_ms IS NOT NULL"),
    sqlite_with_rowid=False,
)

#: Live gateways (`service.storage.cluster.membership`). `beat` is the heartbeat counter.
gateways = sa.Table(
    "gateways",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", BigInteger, nullable=False),
    sa.Column("process_start", sa.Text, nullable=False),
    sa.Column("beat", BigInteger, nullable=False),
    sa.Column("started_at_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Hashed idempotency keys and the run that answers each; `fingerprint` is a hash of the request.
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("key_hash", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("created_at_ms", BigInteger, nullable=False),
    sa.Index("claims_by_age", "created_at_ms"),
    sa.Index("claims_of_run", "run_id"),
    sqlite_with_rowid=False,
)

#: Answers without a run by the idempotency keys of their requests, as JSON.
kept_answers = sa.Table(
    "kept_answers",
    metadata,
    sa.Column("key_hash", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("created_at_ms", BigInteger, nullable=False),
    sa.Index("kept_answers_by_age", "created_at_ms"),
)
