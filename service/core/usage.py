"""Totals of models' calls, and the prices of their tokens. Money is counted in whole nano-dollars (1e-9 USD)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.core.dataclass import record
from service.core.messages import NO_USAGE, Usage

#: Nano-dollars in a dollar.
NANO = 1_000_000_000

_PICO_IN_NANO = 1000


@record
class Price:
    """The prices of a model, in pico-dollars (1e-12 USD) for each token."""

    input: int
    output: int
    cache_read: int
    cache_write: int

    @property
    def is_free(self) -> bool:
        """True if no token costs anything."""
        return not (self.input or self.output or self.cache_read or self.cache_write)

    def cost_of(self, usage: Usage) -> int:
        """Return the cost of one call in nano-dollars, rounded half up."""
        read, written = usage.cached_tokens, usage.cache_write_tokens
        cost = max(usage.input_tokens - read - written, 0) * self.input + usage.output_tokens * self.output
        cost += read * self.cache_read + written * self.cache_write
        return (cost + _PICO_IN_NANO // 2) // _PICO_IN_NANO


@dataclass(slots=True)
class UsageTotals:
    """The calls of models, and what is known of them.

    `cost_nano` leaves out the `uncosted_calls`; `estimate_nano` is what they have probably cost.
    """

    runs: int = 0
    model_calls: int = 0
    uncosted_calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano: int = 0
    estimate_nano: int = 0


@record
class ModelCall:
    """A call of `model` ("provider/model") that its provider may charge for.

    The usage of one that was cut off is `Usage(cost_nano=None)`. Where the provider has not counted, limits count
    `estimate_tokens`, and budgets `estimate_nano` if the model has a price.
    """

    model: str
    usage: Usage
    estimate_nano: int = 0
    estimate_tokens: int = 0

    @property
    def tokens(self) -> int:
        """The tokens that count for limits."""
        return self.usage.input_tokens + self.usage.output_tokens + self.estimate_tokens


def to_dollars(nano: int | None) -> float | None:
    """Return US dollars, exact up to fifteen digits; `None` is a cost that is not known."""
    return None if nano is None else nano / NANO


def total_of(calls: Iterable[ModelCall]) -> Usage:
    """Return the usage of all calls."""
    total = NO_USAGE
    for call in calls:
        total += call.usage
    return total
