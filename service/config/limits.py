"""The configuration's section on the limits of callers and agents."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from service.config.problems import Section
from service.config.types import AgentId, MoneyBudget, Positive, PublicName
from service.core.budgets import Budget
from service.core.principal import Principal
from service.core.rate_limits import NO_LIMITS, RateLimits


class LimitConfig(Section):
    """Limits, counted over all processes and hosts that share the database. Unset: no limit."""

    requests_per_minute: Positive | None = None
    """Requests in any sliding minute that start a run, make embeddings or call a tool."""
    tokens_per_minute: Positive | None = None
    """Tokens of input and output in any sliding minute."""
    concurrent_runs: Positive | None = None
    """Runs at once, those that wait for their session or for room included."""
    budget: MoneyBudget | None = None
    """US dollars for each day or month (UTC), such as "5usd/day" or "99.50usd/month". No run begins once they are
    spent, and none with a model that has no price."""

    @cached_property
    def limits(self) -> RateLimits:
        """The limits."""
        return RateLimits(self.requests_per_minute, self.tokens_per_minute, self.concurrent_runs)


class LimitsConfig(Section):
    """Limits of callers and agents; a request has to be within all that concern it."""

    total: LimitConfig = LimitConfig()
    """All requests together."""
    per_key: LimitConfig = LimitConfig()
    """Each API key, as far as it has no limits of its own."""
    per_user: LimitConfig = LimitConfig()
    """Each user that a trusted proxy names."""
    users: dict[PublicName, LimitConfig] = Field(default_factory=dict)
    """Users that a trusted proxy names, by their names; what is unset here is taken from `perUser`."""
    per_agent: LimitConfig = LimitConfig()
    """Each agent, all its callers together."""
    agents: dict[AgentId, LimitConfig] = Field(default_factory=dict)
    """Agents by id; what is unset here is taken from `perAgent`."""

    @cached_property
    def is_empty(self) -> bool:
        """True if nothing is limited here."""
        return self == LimitsConfig()

    def of_caller(self, principal: Principal) -> RateLimits:
        """Return the limits of a key or user; the caller with the gateway's own token has none."""
        if principal.key_id is not None:
            defaults = self.per_key.limits
            return principal.limits.over(defaults) if defaults else principal.limits
        if principal.user is not None:
            named = self.users.get(principal.user)
            return self.per_user.limits if named is None else named.limits.over(self.per_user.limits)
        return NO_LIMITS

    @cached_property
    def has_budgets(self) -> bool:
        """True if there is a budget here."""
        named = (*self.users.values(), *self.agents.values())
        return any(one.budget is not None for one in (self.total, self.per_key, self.per_user, self.per_agent, *named))

    def budget_of_caller(self, principal: Principal) -> Budget | None:
        """Return the budget of a key or user; the caller with the gateway's own token has none."""
        if principal.key_id is not None:
            return principal.budget or self.per_key.budget
        named = self.users.get(principal.user or "")
        default = None if principal.user is None else self.per_user.budget
        return default if named is None else named.budget or default

    def budget_of_agent(self, agent_id: str) -> Budget | None:
        """Return the budget of an agent, whose id is in lower case."""
        named = next((one for name, one in self.agents.items() if name.lower() == agent_id), self.per_agent)
        return named.budget or self.per_agent.budget

    def of_agent(self, agent_id: str) -> RateLimits:
        """Return the limits of an agent, whose id is in lower case."""
        return self._of_agents.get(agent_id, self.per_agent.limits)

    @cached_property
    def _of_agents(self) -> dict[str, RateLimits]:
        return {name.lower(): limit.limits.over(self.per_agent.limits) for name, limit in self.agents.items()}
