"""Translate sums of usage to the contract's objects, for HTTP and the command line."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeGuard

from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.principal import ADMINISTRATOR, Principal
from service.core.usage import UsageTotals, to_dollars
from service.storage.storage import Storage
from service.storage.usage import UsageGroup, UsageRow

_EPOCH = date(1970, 1, 1)
_LISTED_DAYS = 30


@record
class Period:
    """Days since 1970, the last one included."""

    first: int
    last: int


def parse_period(first: str | None, last: str | None, now: float) -> Period:
    """Return the period from `first` to `last`, days such as 2026-01-31; by default the 30 days up to today.

    One that ends before it begins is empty. Raises `GatewayError` (`invalid_value`) for what is no day.
    """
    end = datetime.fromtimestamp(now, UTC).date() if last is None else _parse_day("to", last)
    begin = end - timedelta(days=_LISTED_DAYS - 1) if first is None else _parse_day("from", first)
    return Period((begin - _EPOCH).days, (end - _EPOCH).days)


@record
class UsageReport:
    """The usage of a period that `principal` may see, summed up by `by`."""

    storage: Storage
    by: UsageGroup
    period: Period
    principal: Principal = ADMINISTRATOR

    def to_list(self, limit: int) -> dict[str, Any]:
        """Return a `UsageList` of at most `limit` sums. Raises `StoreError`."""
        usage, days = self.storage.usage, (self.period.first, self.period.last)
        account = None if self.principal.owner is None else self.principal.account
        found = usage.list(self.by, *days, limit + 1, account=account)
        names = self._key_names() if self.by in (UsageGroup.KEY, UsageGroup.USER) else {}
        names |= {row.account: row.user or "" for row in found if is_proxy_user(row.account)}
        return {
            "object": "list",
            "by": self.by,
            "from": _to_text(days[0]),
            "to": _to_text(days[1]),
            "data": [self._to_sum(row, names) for row in found[:limit]],
            "total": to_counts(usage.total(*days, account=account).totals),
            "has_more": len(found) > limit,
        }

    def _to_sum(self, row: UsageRow, names: dict[str, str]) -> dict[str, Any]:
        return {
            "object": "usage",
            "day": None if row.day is None else _to_text(row.day),
            "key": row.account or None,
            "key_name": names.get(row.account or "") or None,
            "user": row.user or None if self.by is UsageGroup.USER else None,
            "agent": row.agent_id,
            "model": row.model,
            "usage": to_counts(row.totals),
        }

    def _key_names(self) -> dict[str, str]:
        if self.principal.owner is not None:
            return {self.principal.account: self.principal.name}
        return {key.id: key.name for key in self.storage.api_keys.list()}


def is_proxy_user(account: str | None) -> TypeGuard[str]:
    """Return True if the account is that of a user whom a trusted proxy named, not that of an API key."""
    return account is not None and account.startswith("user:")


def to_counts(totals: UsageTotals) -> dict[str, Any]:
    """Translate to a `UsageCounts`."""
    is_known = not totals.model_calls or totals.uncosted_calls < totals.model_calls
    return {
        "runs": totals.runs,
        "model_calls": totals.model_calls,
        "uncosted_calls": totals.uncosted_calls,
        "input_tokens": totals.input_tokens,
        "cached_tokens": totals.cached_tokens,
        "cache_write_tokens": totals.cache_write_tokens,
        "output_tokens": totals.output_tokens,
        "reasoning_tokens": totals.reasoning_tokens,
        "cost": to_dollars(totals.cost_nano) if is_known else None,
    }


def _parse_day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise GatewayError("invalid_value", f"`{name}`: there is no day {text}.", param=name) from None


def _to_text(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()
