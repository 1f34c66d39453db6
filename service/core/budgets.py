"""Budgets: money that may be spent in each day or month (UTC)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal

from service.core.dataclass import record
from service.core.usage import NANO

Period = Literal["day", "month"]

_BUDGET = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?usd/(day|month)", re.IGNORECASE)
_EPOCH = date(1970, 1, 1)


@record
class Budget:
    """Nano-dollars (1e-9 USD) for each day or month."""

    limit_nano: int
    period: Period

    def __str__(self) -> str:
        return f"{(Decimal(self.limit_nano) / NANO).normalize():f}usd/{self.period}"

    def days_at(self, now: float) -> tuple[int, int]:
        """Return the first and the last day of the period at `now`, as days since 1970."""
        today = datetime.fromtimestamp(now, UTC).date()
        first = today if self.period == "day" else today.replace(day=1)
        return (first - _EPOCH).days, (_next(first, self.period) - _EPOCH).days - 1

    def renewal_at(self, now: float) -> datetime:
        """Return when the period at `now` ends."""
        first, last = self.days_at(now)
        del first
        return datetime.combine(_EPOCH + timedelta(days=last + 1), datetime.min.time(), UTC)


def parse_budget(text: object) -> Budget:
    """Parse a budget such as "5usd/day" or "0.50 USD/month". Raises `ValueError`."""
    found = _BUDGET.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        text = 'must be an amount of US dollars for each day or month, such as "5usd/day" or "99.50usd/month"'
        raise ValueError(text)
    return Budget(int(Decimal(found[1]) * NANO), "day" if found[2].lower() == "day" else "month")


def _next(first: date, period: Period) -> date:
    if period == "day":
        return first + timedelta(days=1)
    return (first + timedelta(days=31)).replace(day=1)
