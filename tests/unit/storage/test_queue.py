"""Session queue: one run at a time in each session, first in first out, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.concurrency import Cancelled, CancelScope, Deadline, Event, deadline, sleep, spawn
from service.core.errors import GatewayError
from service.storage.runs.queue import SessionQueue

GENEROUS_SECONDS = 20


def finish(greenlets: list[Any]) -> None:
    with deadline(GENEROUS_SECONDS):
        for greenlet in greenlets:
            greenlet.get()


def started(function: Callable[..., object], *args: object) -> Any:
    """A greenlet that has run until it first waits."""
    greenlet = spawn(function, *args)
    sleep(0)
    return greenlet


def run_in(
    queue: SessionQueue, key: str, done: list[object], name: object, timeout_seconds: float | None = None
) -> None:
    with queue.acquire(key, timeout_seconds):
        done.append(name)
        sleep(0)


def test_free_session_is_acquired_without_waiting() -> None:
    queue = SessionQueue()
    lane = queue.acquire("a", 0)
    assert len(queue) == 1
    lane.release()
    assert len(queue) == 0


def test_runs_of_one_session_keep_arrival_order() -> None:
    queue = SessionQueue()
    done: list[int] = []
    inside: list[int] = []

    def run(number: int) -> None:
        with queue.acquire("a", None):
            inside.append(number)
            sleep(0)
            assert inside == [number]  # nobody else came in meanwhile
            inside.clear()
            done.append(number)

    finish([spawn(run, number) for number in range(200)])
    assert done == list(range(200))
    assert len(queue) == 0


def test_sessions_do_not_wait_for_one_another() -> None:
    queue = SessionQueue()
    done: list[object] = []
    with queue.acquire("held", 0):
        held = started(run_in, queue, "held", done, "held")
        finish([spawn(run_in, queue, f"free-{number}", done, number, 0) for number in range(50)])
        assert sorted(done, key=str) == sorted(range(50), key=str)
    finish([held])
    assert done[-1] == "held"


def test_queue_timeout_is_session_busy() -> None:
    queue = SessionQueue()
    with queue.acquire("a", 0):
        for timeout_seconds in (0, 0.01):
            with pytest.raises(GatewayError, match="Another run of this session") as caught:
                queue.acquire("a", timeout_seconds)
            assert (caught.value.code, caught.value.status) == ("session_busy", 409)
    queue.acquire("a", 0).release()
    assert len(queue) == 0


def test_second_release_is_no_op() -> None:
    queue = SessionQueue()
    done: list[object] = []
    first = queue.acquire("a", 0)
    second = started(queue.acquire, "a", None)
    third = started(run_in, queue, "a", done, "third")
    first.release()
    first.release()
    lane = second.get()
    first.release()
    sleep(0)
    assert done == []  # the second still holds the session
    lane.release()
    finish([third])
    assert done == ["third"]


def test_failing_run_releases_session() -> None:
    queue = SessionQueue()
    with pytest.raises(ZeroDivisionError), queue.acquire("a", 0):
        raise ZeroDivisionError
    assert len(queue) == 0


def test_cancelled_waiter_leaves_queue_and_order_is_kept() -> None:
    queue, scope = SessionQueue(), CancelScope()
    done: list[object] = []

    def cancellable() -> None:
        with pytest.raises(Cancelled), scope:
            run_in(queue, "a", done, "cancelled")

    first = queue.acquire("a", 0)
    waiters = [
        started(run_in, queue, "a", done, 1),
        started(cancellable),
        started(run_in, queue, "a", done, 2),
    ]
    scope.cancel()
    finish(waiters[1:2])
    first.release()
    finish(waiters)
    assert done == [1, 2]
    assert len(queue) == 0


def test_waiter_whose_deadline_passes_leaves_queue() -> None:
    queue = SessionQueue()
    with queue.acquire("a", 0), pytest.raises(Deadline), deadline(0.01):
        queue.acquire("a", None)
    assert len(queue) == 0


def test_killed_waiter_passes_session_to_next() -> None:
    queue = SessionQueue()
    done: list[object] = []
    first = queue.acquire("a", 0)
    second = started(run_in, queue, "a", done, "second")
    third = started(run_in, queue, "a", done, "third")
    second.kill(block=False)
    first.release()  # the turn is the second's, but what reaches it first is its end
    finish([third])
    assert done == ["third"]
    assert len(queue) == 0


actions = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["run", "kill", "time out"])), max_size=30)


@given(actions)
@settings(max_examples=100)
def test_waiters_keep_order_when_others_give_up(plan: list[tuple[str, str]]) -> None:
    queue, gate = SessionQueue(), Event()
    done: dict[str, list[object]] = {key: [] for key in "abc"}

    def hold(key: str) -> None:
        with queue.acquire(key, None):
            gate.wait()

    def busy(key: str) -> None:
        with pytest.raises(GatewayError):
            queue.acquire(key, 0)

    greenlets = [started(hold, key) for key in "abc"]
    doomed: list[Any] = []
    for number, (key, action) in enumerate(plan):
        if action == "time out":
            busy(key)
            continue
        waiter = started(run_in, queue, key, done[key], number)
        (doomed if action == "kill" else greenlets).append(waiter)
    gate.set()
    for waiter in doomed:
        waiter.kill(block=False)
    finish(greenlets)
    for key in "abc":
        assert done[key] == [number for number, step in enumerate(plan) if step == (key, "run")]
    assert len(queue) == 0
