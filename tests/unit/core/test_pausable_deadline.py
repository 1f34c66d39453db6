"""A deadline whose time can stop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gevent.monkey import get_original

from service.core.concurrency import Deadline, sleep, spawn
from service.core.pausable_deadline import PausableDeadline

_blocking_sleep: Callable[[float], None] = get_original("time", "sleep")


def check(seconds: float, before: Callable[[], None], paused_seconds: float, at_most_seconds: float) -> None:
    """Check that a limit ends within `at_most_seconds` of a pause, not in it.

    Both are timers of one event loop: their order is the same however late the loop is.
    """
    reached: list[str] = []

    def work() -> None:
        limit = PausableDeadline(seconds)
        with limit:
            before()
            with limit.paused():
                sleep(paused_seconds)
            reached.append("after the pause")
            sleep(at_most_seconds)
            reached.append("too late")

    with pytest.raises(Deadline):
        work()
    assert reached == ["after the pause"]


def test_time_of_pause_is_not_counted() -> None:
    check(0.1, lambda: None, 0.3, 60)


def test_time_before_pause_is_counted() -> None:
    check(0.4, lambda: sleep(0.3), 0.1, 0.25)


def test_time_before_pause_is_counted_where_the_event_loop_was_busy() -> None:
    check(0.3, lambda: _blocking_sleep(0.4), 0.1, 0.25)


def test_pause_just_when_the_time_is_up_gives_no_more_time() -> None:
    def delay_the_event_loop() -> None:
        sleep(0.25)
        _blocking_sleep(0.2)

    spawn(delay_the_event_loop)
    sleep(0.01)
    check(0.4, lambda: sleep(0.38), 0.01, 0.25)  # both times are up in one turn of the event loop


def test_exception_in_pause_ends_limit() -> None:
    limit = PausableDeadline(0.05)
    with pytest.raises(ValueError, match="x"), limit, limit.paused():
        raise ValueError("x")
    sleep(0.1)  # not interrupted
