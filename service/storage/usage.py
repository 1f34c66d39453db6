"""The usage of runs and other requests by day, caller, agent and model: sums of the daily totals."""

from __future__ import annotations

from enum import StrEnum
from time import monotonic
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.core.usage import UsageTotals
from service.storage.database.caller_schema import USAGE_COUNTS, daily_usage
from service.storage.database.database import Database


class UsageGroup(StrEnum):
    """The subjects that usage is summed up by."""

    KEY = "key"
    USER = "user"
    AGENT = "agent"
    MODEL = "model"
    DAY = "day"


@record
class UsageRow:
    """A sum. Of `day` (days since 1970), `account`, `user`, `agent_id` and `model` those are set that it is grouped by.

    `account` and `user` are "" for callers without; two API keys may use the same name for a user. Sums of accounts
    have the user whom a trusted proxy named, too.
    """

    totals: UsageTotals
    day: int | None = None
    account: str | None = None
    user: str | None = None
    agent_id: str | None = None
    model: str | None = None


_COLUMNS = {
    UsageGroup.KEY: ("account",),
    UsageGroup.USER: ("account", "user_name"),
    UsageGroup.AGENT: ("agent_id",),
    UsageGroup.MODEL: ("model",),
    UsageGroup.DAY: ("day",),
}
_SUMS = [sa.func.coalesce(sa.func.sum(daily_usage.c[name]), 0).label(name) for name in USAGE_COUNTS]
#: How long what was spent is relied on.
FRESH_SECONDS = 0.5

_MAX_KNOWN = 10_000
_UNREAD = (0.0, (0, 0), 0)

#: A day that does not come.
_LAST_DAY = 1_000_000

_SPENT = sa.func.coalesce(sa.func.sum(daily_usage.c.cost_nano + daily_usage.c.estimate_nano), 0).label("spent")
_SPENT_BY: dict[tuple[str, ...], sa.Select[Any]] = {
    columns: sa.select(_SPENT).where(
        daily_usage.c.day.between(sa.bindparam("first"), sa.bindparam("last")),
        *(daily_usage.c[name] == sa.bindparam(name) for name in columns),
    )
    for columns in ((), ("account",), ("agent_id",), ("account", "agent_id"))
}
#: The name of the user whom a trusted proxy named: the account has only its digest.
_PROXY_USER = sa.case(
    (daily_usage.c.account.startswith("user:"), sa.func.max(daily_usage.c.user_name)), else_=""
).label("user_name")
_ALL_TOKENS = sa.func.sum(daily_usage.c.input_tokens + daily_usage.c.output_tokens)


class DailyUsage:
    """The usage of all gateways that share a database. Methods raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._spent: dict[tuple[str | None, str | None], tuple[float, tuple[int, int], int]] = {}

    def list(
        self,
        by: UsageGroup,
        first_day: int = 0,
        last_day: int = _LAST_DAY,
        limit: int | None = None,
        *,
        account: str | None = None,
    ) -> tuple[UsageRow, ...]:
        """Return at most `limit` sums of the days, those of days in their order, others with most tokens first.

        `account` limits them to one key.
        """
        columns = [daily_usage.c[name] for name in _COLUMNS[by]]
        shown = [*columns, _PROXY_USER] if by is UsageGroup.KEY else columns
        found = sa.select(*shown, *_SUMS).where(*_within(first_day, last_day, account)).group_by(*columns)
        found = found.order_by(*columns) if by is UsageGroup.DAY else found.order_by(_ALL_TOKENS.desc(), *columns)
        return tuple(map(_to_row, self._database.fetch(found.limit(limit), {})))

    def spent(self, first_day: int, last_day: int, account: str | None = None, agent_id: str | None = None) -> int:
        """Return the cost of the days in nano-dollars, estimates included, of one account or agent if it is set.

        What other processes have added in the last `FRESH_SECONDS` may be missing.
        """
        key = (account, agent_id)
        read_at, days, cost = self._spent.get(key, _UNREAD)
        if days == (first_day, last_day) and monotonic() < read_at + FRESH_SECONDS:
            return cost
        chosen = {name: value for name, value in (("account", account), ("agent_id", agent_id)) if value is not None}
        now = monotonic()
        found = self._database.fetch(_SPENT_BY[tuple(chosen)], {"first": first_day, "last": last_day, **chosen})
        cost = int(found[0].spent)
        if len(self._spent) >= _MAX_KNOWN:
            self._spent.clear()
        self._spent[key] = now, (first_day, last_day), cost
        return cost

    def forget(self, account: str, agent_id: str) -> None:
        """Read again what was spent by the account, by the agent and in all: this process has added to it."""
        if self._spent:
            for key in ((account, None), (None, agent_id), (None, None)):
                self._spent.pop(key, None)

    def total(self, first_day: int, last_day: int, *, account: str | None = None) -> UsageRow:
        """Return the sum of the days, of one key if `account` is set."""
        return _to_row(self._database.fetch(sa.select(*_SUMS).where(*_within(first_day, last_day, account)), {})[0])


def _within(first_day: int, last_day: int, account: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    days = daily_usage.c.day.between(first_day, last_day)
    return (days,) if account is None else (days, daily_usage.c.account == account)


def _to_row(row: sa.Row[Any]) -> UsageRow:
    group = row._asdict()
    totals = UsageTotals(*(int(group.pop(name)) for name in USAGE_COUNTS))  # PostgreSQL's sums are decimals
    if "user_name" in group:
        group["user"] = group.pop("user_name")
    return UsageRow(totals, **group)
