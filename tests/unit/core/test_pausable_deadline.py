"""A deadline whose time can stop."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from gevent.monkey import get_original

from service.core.concurrency import Deadline, sleep, spawn
from service.core.pausable_deadline import PausableDeadline

_blocking_sleep: Callable[[float], None] = get_original("time", "sleep")


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


def test_time_before_pause_is_counted_where_the_event_loop_was_busy() -> None:
    def work() -> None:
        with limit:
            sleep(0.01)
            _blocking_sleep(0.4)
            with limit.paused():
                sleep(0.1)
            sleep(5)

    limit = PausableDeadline(0.3)
    began_at = time.monotonic()
    with pytest.raises(Deadline):
        work()
    assert 0.5 < time.monotonic() - began_at < 0.75


def test_pause_just_when_the_time_is_up_gives_no_more_time() -> None:
    def delay_the_event_loop() -> None:
        sleep(0.25)
        _blocking_sleep(0.2)

    spawn(delay_the_event_loop)
    sleep(0.01)
    began_at = time.monotonic()
    wait(PausableDeadline(0.4), 0.38, 0.01)  # both times are up in one turn of the event loop
    assert time.monotonic() - began_at < 0.65


def test_exception_in_pause_ends_limit() -> None:
    limit = PausableDeadline(0.05)
    with pytest.raises(ValueError, match="x"), limit, limit.paused():
        raise ValueError("x")
    sleep(0.1)  # not interrupted
