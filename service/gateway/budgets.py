"""Budgets of callers, agents and all together: no run begins once one is spent.

What is spent are the daily totals of usage, which each run adds to when it ends: those that go on may exceed a budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from service.config.limits import LimitsConfig
from service.core.budgets import Budget
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.principal import Principal
from service.models.catalog import ChosenModel
from service.storage.usage import DailyUsage


@record
class _Concern:
    """A budget that a run has to be within, of an account or of an agent; of all without either."""

    whose: str
    budget: Budget
    account: str | None = None
    agent_id: str | None = None


class Budgets:
    """The budgets of this gateway's callers and agents. `config` has those in force, `clock` seconds since 1970."""

    def __init__(self, usage: DailyUsage, config: LimitsConfig, clock: Callable[[], float]) -> None:
        self._usage = usage
        self.config = config
        self._clock = clock

    def check(self, principal: Principal, agent_id: str, choices: Sequence[ChosenModel]) -> tuple[ChosenModel, ...]:
        """Return those of a run's models whose cost is known, all of them if no budget concerns it.

        Raises `StoreError`, and `GatewayError`: `budget_exceeded` for a spent budget, `model_not_found` if no model has
        a price, because a budget could not be kept.
        """
        if principal.budget is None and not self.config.has_budgets:
            return tuple(choices)
        concerns = list(self._concerning(principal, agent_id))
        now = self._clock()
        for concern in concerns:
            days = concern.budget.days_at(now)
            if self._usage.spent(*days, concern.account, concern.agent_id) >= concern.budget.limit_nano:
                raise _spent(concern, now)
        priced = tuple(choice for choice in choices if not concerns or choice.price is not None)
        if not priced:
            raise _without_price(choices[0], concerns[0])
        return priced

    def invalidate(self, account: str, agent_id: str) -> None:
        """Drop what is cached of the spending of an account and an agent."""
        self._usage.forget(account, agent_id)

    def _concerning(self, principal: Principal, agent_id: str) -> Iterator[_Concern]:
        config = self.config
        if (budget := config.budget_of_caller(principal)) is not None:
            whose = "this user" if principal.key_id is None else "this API key"
            yield _Concern(whose, budget, account=principal.account)
        if (budget := config.budget_of_agent(agent_id)) is not None:
            yield _Concern(f"the agent {agent_id}", budget, agent_id=agent_id)
        if (budget := config.total.budget) is not None:
            yield _Concern("this gateway", budget)


def _spent(concern: _Concern, now: float) -> GatewayError:
    renewal = concern.budget.renewal_at(now)
    text = f"The budget of {concern.whose} is spent: {concern.budget}. It renews at {renewal:%Y-%m-%dT%H:%M:%SZ}."
    return GatewayError("budget_exceeded", text)


def _without_price(model: ChosenModel, concern: _Concern) -> GatewayError:
    text = (
        f"The model {model.ref} has no price (models.providers.*.models[].cost), so that the budget of "
        f"{concern.whose}, {concern.budget}, could not be kept. Use a model with a price."
    )
    return GatewayError("model_not_found", text, param="model")
