"""The option `--budget` of the commands for keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.core.budgets import Budget


class _BudgetText(click.ParamType[str]):
    """A budget such as 5usd/day, or `none`, which is empty."""

    name = "budget"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the budget in its usual form."""
        from service.core.budgets import parse_budget

        if value == "none":
            return ""
        try:
            return str(parse_budget(value))
        except ValueError as error:
            self.fail(f"{value} {error}, or none.", param, ctx)


budget_option = click.option(
    "--budget", type=_BudgetText(), metavar="BUDGET|none", help="US dollars per day or month: 5usd/day."
)


def to_budget(given: str | None, before: Budget | None) -> Budget | None:
    """Return the budget that was given, or the one `before`; empty text takes it away."""
    from service.core.budgets import parse_budget

    return before if given is None else parse_budget(given) if given else None
