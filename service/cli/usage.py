"""`openclaw usage`: what was used and what it cost, directly in the database, without a gateway."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from service.cli.shared.common import json_option, print_json, print_table
from service.cli.shared.storage import pass_storage

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUPS = ("key", "user", "agent", "model", "day")
_TITLES = {"key": "KEY", "user": "USER", "agent": "AGENT", "model": "MODEL", "day": "DAY (UTC)"}


@click.command()
@click.option("--by", type=click.Choice(_GROUPS), default="day", show_default=True, help="What to sum up by.")
@click.option("--from", "first", metavar="DAY", help="The first day, such as 2026-01-31. By default 30 days are shown.")
@click.option("--to", "last", metavar="DAY", help="The last day; today by default.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many sums at most.")
@json_option
@pass_storage
def usage(opened: Any, *, by: str, first: str | None, last: str | None, limit: int, as_json: bool) -> None:
    """Show tokens and cost of whole days (UTC), those of all gateways that share the database.

    The cost is in US dollars, by the prices that models.providers.*.models[].cost had. "+ ?" stands for
    calls whose cost is unknown.
    """
    from service.api.usage_report import UsageReport, parse_period
    from service.core.errors import GatewayError
    from service.storage.usage import UsageGroup

    try:
        period = parse_period(first, last, time.time())
    except GatewayError as error:
        raise click.UsageError(error.message) from None
    if period.first > period.last:
        raise click.UsageError("--from is later than --to, which is today by default.")
    with opened() as (storage, _):
        report = UsageReport(storage, UsageGroup(by), period).to_list(limit)
    if as_json:
        print_json(report)
        return
    rows = [(_name_of(row, by), *_to_columns(row["usage"])) for row in report["data"]]
    if len(rows) != 1:
        rows.append(("total", *_to_columns(report["total"])))
    print_table((_TITLES[by], "RUNS", "INPUT", "CACHED", "OUTPUT", "REASONING", "COST (USD)"), rows)
    if report["has_more"]:
        click.echo("... there are more; use --limit to show them", err=True)


def _name_of(row: Mapping[str, Any], by: str) -> str:
    from service.api.usage_report import is_proxy_user

    key = row["key_name"] or row["key"]
    if by in ("key", "user") and is_proxy_user(row["key"]):
        return f"{key} (user of a proxy)"
    if by == "key":
        return key or "(none)"
    name = row[by] or "(none)"
    return f"{name} of {key}" if by == "user" and key else name


def _to_columns(counts: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("runs", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    return (*(str(counts[name]) for name in names), format_cost(counts))


def format_cost(counts: Mapping[str, Any]) -> str:
    """Return the cost of a `UsageCounts` for people."""
    if counts["cost"] is None:
        return "?"
    cost = f"{counts['cost']:.9f}".rstrip("0")
    cost = cost + "0" * max(0, cost.index(".") + 3 - len(cost))
    return f"{cost} + ?" if counts["uncosted_calls"] else cost
