"""Limits on what callers use."""

from __future__ import annotations

from service.core.dataclass import record


@record
class RateLimits:
    """Requests and tokens in any sliding minute, and runs at once; `None` is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_runs: int | None = None

    def over(self, defaults: RateLimits) -> RateLimits:
        """Return these limits with those of `defaults` where these have none."""
        return RateLimits(
            *(
                default if own is None else own
                for own, default in zip(self.to_tuple(), defaults.to_tuple(), strict=True)
            )
        )

    def to_tuple(self) -> tuple[int | None, int | None, int | None]:
        """Return the three limits in their order."""
        return self.requests_per_minute, self.tokens_per_minute, self.concurrent_runs

    def __bool__(self) -> bool:
        return self.to_tuple() != (None, None, None)


NO_LIMITS = RateLimits()

#: The names of the limits in their order, each with its unit.
_UNITS = {"requests": "request{} per minute", "tokens": "token{} per minute", "runs": "run{} at once"}


def describe_limits(limits: RateLimits) -> dict[str, str]:
    """Return what people read of each limit that there is, by its name."""
    named = zip(_UNITS.items(), limits.to_tuple(), strict=True)
    return {
        name: f"{number} {unit.format('' if number == 1 else 's')}"
        for (name, unit), number in named
        if number is not None
    }


@record
class Quota:
    """A limit, what is left of it, and the seconds until all of it is free again."""

    limit: int
    remaining: int
    reset_seconds: float
