"""The tables about callers: their keys, their failed logins and their usage. See `service.storage.database.schema`."""

from __future__ import annotations

import sqlalchemy as sa

from service.storage.database.schema import BigInteger, count_column, metadata

#: What a row of `daily_usage` is about, and its counts.
USAGE_KEY = ("day", "account", "user_name", "agent_id", "model")
USAGE_COUNTS = (
    *("runs", "model_calls", "uncosted_calls", "input_tokens", "cached_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens", "cost_nano", "estimate_nano"),
)

#: Failed logins by client address: their times as a JSON list, and the end of the lockout.
login_failures = sa.Table(
    "login_failures",
    metadata,
    sa.Column("address", sa.Text, primary_key=True),
    sa.Column("failed_at_ms", sa.Text, nullable=False),
    sa.Column("locked_until_ms", BigInteger, nullable=False),
    sa.Column("last_at_ms", BigInteger, nullable=False),
    sa.Index("login_failures_by_age", "last_at_ms"),
    sqlite_with_rowid=False,
)

#: Named keys (`service.storage.api_keys`): SHA-256 digests, in hexadecimal, of the key in force and of the one that it
#: replaced, which is valid until `old_until_ms`. `scopes`, `agents` and `models` are JSON lists, NULL without a limit.
#: `rpm`, `tpm` and `concurrent` limit requests and tokens per minute and runs at once, `budget` is "5usd/day".
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("old_digest", sa.Text),
    sa.Column("old_until_ms", BigInteger),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("agents", sa.Text),
    sa.Column("models", sa.Text),
    sa.Column("created_at_ms", BigInteger, nullable=False),
    sa.Column("expires_at_ms", BigInteger),
    sa.Column("revoked_at_ms", BigInteger),
    sa.Column("last_used_at_ms", BigInteger),
    *(sa.Column(name, BigInteger) for name in ("rpm", "tpm", "concurrent")),
    sa.Column("budget", sa.Text),
    sqlite_with_rowid=False,
)

#: What was used of the limits of `subject` (`service.storage.limits.counters`): requests and tokens of the last minute
#: as JSON lists of times and amounts, and runs at once as a JSON object by gateway.
limit_usage = sa.Table(
    "limit_usage",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("requests", "tokens", "runs")),
    sa.Column("updated_at_ms", BigInteger, nullable=False),
    sa.Index("limit_usage_by_age", "updated_at_ms"),
    sqlite_with_rowid=False,
)

#: What runs and other requests have used on a UTC day (`day`: days since 1970), by caller, agent and model. Added to in
#: the transactions that end them (`service.storage.database.daily_usage`) and never recounted. `account` is that of the
#: caller (`service.core.principal`), `user_name` the user whom it named; "" where there is none. `runs` counts for the
#: model that answered, `uncosted_calls` are missing in `cost_nano`;
#: `estimate_nano` is an estimate of these for budgets.
daily_usage = sa.Table(
    "daily_usage",
    metadata,
    sa.Column("id", BigInteger, primary_key=True),
    sa.Column("day", sa.Integer, nullable=False),
    *(sa.Column(name, sa.Text, nullable=False) for name in USAGE_KEY[1:]),
    *(count_column(name) for name in USAGE_COUNTS),
    sa.Index("daily_usage_of_key", "account", "day"),
    sa.Index("daily_usage_by_day", *USAGE_KEY, unique=True),
)
