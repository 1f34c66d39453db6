"""A deadline whose time can stop."""

from __future__ import annotations

import time

import pytest

from service.core.concurrency import Deadline, sleep
from service.core.pausable_deadline import PausableDeadline


def wait(limit: PausableDeadline, before_seconds: float, paused_seconds: float) -> None:
    """Wait until `limit` ends, with a pause."""

    def work() -> None:
        with limit:
            sleep(before_seconds)
            with limit.paused():
                sleep(paused_seconds)
            sleep(5)

    with pytest.raises(Deadline):
        work()


def test_time_of_pause_is_not_counted() -> None:
    began_at = time.monotonic()
    wait(PausableDeadline(0.1), 0, 0.3)
    assert 0.35 < time.monotonic() - began_at < 2


def test_time_before_pause_is_counted() -> None:
    began_at = time.monotonic()
    wait(PausableDeadline(0.4), 0.3, 0.1)
    assert 0.45 < time.monotonic() - began_at < 0.65


def test_blocks_share_the_time() -> None:
    limit = PausableDeadline(0.4)
    with limit:
        sleep(0.3)
    sleep(0.2)
    began_at = time.monotonic()
    with pytest.raises(Deadline), limit:
        sleep(5)
    assert 0.05 < time.monotonic() - began_at < 0.25


def test_exception_in_pause_ends_limit() -> None:
    limit = PausableDeadline(0.05)
    with pytest.raises(ValueError, match="x"), limit, limit.paused():
        raise ValueError("x")
    sleep(0.1)  # not interrupted
