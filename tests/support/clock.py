"""A manual clock for tests."""

from __future__ import annotations


class Clock:
    """Seconds since 1970 that advance only when `now` is set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now
