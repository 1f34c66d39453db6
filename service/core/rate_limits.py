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


@record
class Quota:
    """A limit, what is left of it, and the seconds until all of it is free again."""

    limit: int
    remaining: int
    reset_seconds: float
