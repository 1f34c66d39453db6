"""Budgets: their text, and the days of their periods."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.core.budgets import Budget, parse_budget

NANO = 10**9


@pytest.mark.parametrize(
    ("text", "budget", "shown"),
    [
        ("5usd/day", Budget(5 * NANO, "day"), "5usd/day"),
        (" 0.50 USD/Month", Budget(NANO // 2, "month"), "0.5usd/month"),
        ("0usd/day", Budget(0, "day"), "0usd/day"),
        ("100usd/month", Budget(100 * NANO, "month"), "100usd/month"),
        ("0.000000001usd/day", Budget(1, "day"), "0.000000001usd/day"),
    ],
)
def test_a_budget_is_read_and_shown(text: str, budget: Budget, shown: str) -> None:
    assert parse_budget(text) == budget
    assert str(budget) == shown
    assert parse_budget(shown) == budget


@pytest.mark.parametrize("text", ["5", "5usd", "5eur/day", "-5usd/day", "5usd/week", "5,0usd/day", "usd/day", 5, None])
def test_anything_else_is_no_budget(text: object) -> None:
    with pytest.raises(ValueError, match="5usd/day"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("period", "now", "days", "renewal"),
    [
        ("day", "2026-01-31T23:59:59", 1, "2026-02-01"),
        ("month", "2026-01-31T23:59:59", 31, "2026-02-01"),
        ("month", "2024-02-01T00:00:00", 29, "2024-03-01"),
        ("month", "2026-12-05T12:00:00", 31, "2027-01-01"),
    ],
)
def test_a_period_ends_with_its_day_or_month(period: str, now: str, days: int, renewal: str) -> None:
    budget, at = Budget(1, period), datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()  # type: ignore[arg-type]
    first, last = budget.days_at(at)
    assert last - first + 1 == days
    assert first <= at // 86_400 <= last
    assert f"{budget.renewal_at(at):%Y-%m-%dT%H:%M}" == f"{renewal}T00:00"
