"""Admission of runs within the limits that concern them: of the caller, of the agent, of all together."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from service.agent.request import AgentRequest
from service.config.limits import LimitsConfig
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.principal import Principal
from service.core.rate_limits import NO_LIMITS, Quota, RateLimits, describe_limits
from service.core.usage import ModelCall
from service.gateway.shared_limit import Admission, LimitReachedError, SharedLimit
from service.models.provider import DEFAULT_ANSWER_TOKENS
from service.models.tokens import BYTES_PER_TOKEN, estimate_message
from service.storage.database.errors import StoreError
from service.storage.limits.counters import WINDOW_MS
from service.storage.storage import Storage

_MAX_SUBJECTS = 10_000
_TOTAL = "total"

#: The limits that concern a caller, behind the configuration and the limits of its key that they were found with.
_Known = tuple[LimitsConfig, RateLimits, tuple[SharedLimit, ...]]

#: OpenAI's headers of a limit.
_REQUESTS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
_TOKENS = ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens")


@record
class Ticket:
    """The admission of a run, which ends with `settle` or `give_back`."""

    admissions: tuple[Admission, ...]

    def settle(self, calls: Iterable[ModelCall]) -> None:
        """Count what the run's calls of models used, instead of the estimate."""
        tokens = sum(call.tokens for call in calls)
        for admission in self.admissions:
            admission.settle(tokens)

    def give_back(self) -> None:
        """Count nothing: no run was needed."""
        for admission in self.admissions:
            admission.give_back()


def give_back(ticket: Ticket | None) -> None:
    """See `Ticket.give_back`; a run without a ticket has nothing to give back."""
    if ticket is not None:
        ticket.give_back()


class RateLimiter:
    """The limits of this gateway's callers and agents. `config` has those in force."""

    def __init__(self, storage: Storage, config: LimitsConfig, window_ms: int = WINDOW_MS) -> None:
        self._storage = storage
        self.config = config
        self._window_ms = window_ms
        self._shared: OrderedDict[str, SharedLimit] = OrderedDict()
        self._known: dict[tuple[str | None, str | None], _Known] = {}

    def admit(self, principal: Principal, agent_id: str, tokens: Callable[[], int]) -> Ticket | None:
        """Count a run that will probably use `tokens()`; `None` if no limit concerns it.

        Raises `GatewayError` (`rate_limit_exceeded`) and `StoreError`.
        """
        concerned = self._concerned(principal, agent_id) if self.concern(principal) else ()
        if not concerned:
            return None
        estimate: int | None = None
        admissions: list[Admission] = []
        try:
            for shared in concerned:
                if estimate is None and shared.limits.tokens_per_minute is not None:
                    estimate = tokens()
                admissions.append(shared.admit(estimate or 0))
        except BaseException as failure:
            for admission in admissions:
                admission.give_back()
            if isinstance(failure, LimitReachedError):
                raise self._refused(principal, agent_id, concerned[len(admissions)], failure) from None
            raise
        return Ticket(tuple(admissions))

    def concern(self, principal: Principal) -> bool:
        """Return True if requests of `principal` may be limited."""
        return not self.config.is_empty or (principal.limits is not NO_LIMITS and bool(principal.limits))

    def headers(self, principal: Principal, agent_id: str | None) -> dict[str, str]:
        """Return OpenAI's headers for the limits that concern a request, of each kind for the one with the least left.

        Empty without a limit, and while the database cannot be read.
        """
        requests: Quota | None = None
        tokens: Quota | None = None
        try:
            for shared in self._concerned(principal, agent_id):
                of_requests, of_tokens = shared.quotas()
                requests, tokens = _tighter(requests, of_requests), _tighter(tokens, of_tokens)
        except StoreError:  # logged
            return {}
        found = {} if requests is None else to_headers(_REQUESTS, requests)
        return found if tokens is None else found | to_headers(_TOKENS, tokens)

    def close(self) -> None:
        """Return to the other gateways what is not used any more."""
        for shared in list(self._shared.values()):
            with suppress(StoreError):  # logged
                shared.flush()

    def _concerned(self, principal: Principal, agent_id: str | None) -> tuple[SharedLimit, ...]:
        caller = principal.owner or principal.key_id
        key, config = (caller, agent_id), self.config
        known = self._known.get(key)
        if known is not None and known[0] is config and known[1] is principal.limits:
            return known[2]
        found = tuple(self._find(*one) for one in self._limits_of(principal, agent_id))
        if len(self._known) >= _MAX_SUBJECTS:
            self._known.clear()
        self._known[key] = config, principal.limits, found
        return found

    def _limits_of(self, principal: Principal, agent_id: str | None) -> Iterator[tuple[str, RateLimits]]:
        config = self.config
        if caller := config.of_caller(principal):
            yield principal.owner or f"key:{principal.key_id}", caller
        if agent_id is not None and (agent := config.of_agent(agent_id)):
            yield f"agent:{agent_id}", agent
        if total := config.total.limits:
            yield _TOTAL, total

    def _find(self, subject: str, limits: RateLimits) -> SharedLimit:
        shared = self._shared.get(subject)
        if shared is None:
            others = self._storage.membership
            shared = self._shared[subject] = SharedLimit(
                *(subject, self._storage.limit_usage, lambda: others.id, lambda: others.has_peers),
                window_ms=self._window_ms,
            )
            if len(self._shared) > _MAX_SUBJECTS:
                self._forget_idle()
        self._shared.move_to_end(subject)
        shared.set_limits(limits)
        return shared

    def _forget_idle(self) -> None:
        idle = [subject for subject, shared in self._shared.items() if shared.is_idle]
        for subject in idle[: len(self._shared) - _MAX_SUBJECTS]:
            del self._shared[subject]
        self._known.clear()

    def _refused(
        self, principal: Principal, agent_id: str, reached: SharedLimit, failure: LimitReachedError
    ) -> GatewayError:
        subject = reached.subject
        whose = {_TOTAL: "this gateway", f"agent:{agent_id}": f"the agent {agent_id}"}.get(subject)
        whose = whose or ("this user" if principal.key_id is None else "this API key")
        after = f"Try again in {failure.seconds:.1f} s." if failure.limit != "runs" else "Try again when one has ended."
        text = f"Rate limit reached for {whose}: {describe_limits(reached.limits)[failure.limit]}. {after}"
        headers = {"Retry-After": str(max(1, math.ceil(failure.seconds))), **self.headers(principal, agent_id)}
        if failure.limit == "requests":
            headers["x-ratelimit-remaining-requests"] = "0"  # also while places come back one after the other
        return GatewayError("rate_limit_exceeded", text, headers=headers)


def _tighter(one: Quota | None, other: Quota | None) -> Quota | None:
    if one is None or other is None:
        return one or other
    return other if other.remaining < one.remaining else one


def to_headers(names: tuple[str, str, str], quota: Quota) -> dict[str, str]:
    """Return the headers `names` of `quota`."""
    limit, remaining, reset = names
    reset_text = format_duration(quota.reset_seconds)
    return {limit: str(quota.limit), remaining: str(quota.remaining), reset: reset_text}


def format_duration(seconds: float) -> str:
    """Format a time as OpenAI does: `20ms`, `1s`, `6m0s`."""
    ms = round(seconds * 1000)
    if ms < 1000:  # noqa: PLR2004
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    return f"{minutes}m{ms / 1000:g}s" if minutes else f"{ms / 1000:g}s"


def estimate_tokens(request: AgentRequest) -> int:
    """Return the tokens that a run will probably use at least: those of its new messages, and of its answer if limited.

    Many clients send a limit that no answer comes near, so that not more of it is taken than is usual.
    """
    if request.call is not None:
        return 0
    messages = sum(estimate_message(item.message) for item in request.messages)
    answer = min(request.sampling.max_tokens or 0, DEFAULT_ANSWER_TOKENS)
    return messages + len(request.system_text) // BYTES_PER_TOKEN + answer


def estimate_inputs(inputs: Iterable[str | Iterable[int]]) -> int:
    """Return the tokens of the inputs of embeddings."""
    return sum(len(one) // BYTES_PER_TOKEN + 1 if isinstance(one, str) else len(list(one)) for one in inputs)
