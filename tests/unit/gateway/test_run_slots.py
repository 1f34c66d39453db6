"""The limit of concurrent runs and its queue."""

from __future__ import annotations

from typing import Any

import pytest
from support.polling import until

from service.core.concurrency import Cancelled, CancelScope, sleep, spawn
from service.core.errors import GatewayError
from service.gateway.run_slots import WAITING_PER_SLOT, RunSlot, RunSlots


def test_runs_beyond_limit_wait_in_order() -> None:
    slots, running, most, order = RunSlots(2), [0], [0], []

    def work(number: int) -> None:
        slots.enter()
        order.append(number)
        running[0] += 1
        most[0] = max(most[0], running[0])
        sleep(0.001)
        running[0] -= 1
        slots.leave()

    for worker in [spawn(work, number) for number in range(8)]:
        worker.join()
    assert most == [2]
    assert order == list(range(8))


def test_full_queue_is_refused_with_limit_and_retry_after() -> None:
    slots = RunSlots(1)
    slots.enter()
    waiting = [spawn(slots.enter) for _ in range(WAITING_PER_SLOT)]
    sleep(0)
    with pytest.raises(GatewayError, match="maxConcurrent") as caught:
        slots.enter()
    assert caught.value.status == 429
    assert caught.value.headers == {"Retry-After": "1"}
    for _ in range(WAITING_PER_SLOT + 1):
        slots.leave()
    for one in waiting:
        one.join()


def waiting_in(slots: RunSlots, order: list[str], name: str, *turn: str) -> Any:
    def work() -> None:
        try:
            slots.enter(key=(turn[0], turn[1]))
        except GatewayError:
            order.append("refused")
            return
        order.append(name)
        slots.leave()

    return spawn(work)


def test_callers_take_turns_however_many_of_their_runs_wait() -> None:
    slots, order = RunSlots(60), list[str]()
    for _ in range(60):
        slots.enter()
    waiting = [waiting_in(slots, order, "greedy", "key:greedy", "") for _ in range(240)]
    waiting += [waiting_in(slots, order, name, f"key:{name}", "") for name in ("ann", "ben", "ann", "cleo")]
    sleep(0)
    slots.leave()
    for one in waiting:
        one.join()
    assert order[:6] == ["greedy", "ann", "ben", "cleo", "greedy", "ann"]
    assert order.count("greedy") == 240


def test_sessions_of_one_caller_take_turns_without_more_turns_for_the_caller() -> None:
    slots, order = RunSlots(2), list[str]()
    for _ in range(2):
        slots.enter()
    waiting = [waiting_in(slots, order, "none", "", "") for _ in range(4)]
    waiting += [waiting_in(slots, order, name, "", name) for name in ("s1", "s2")]
    waiting += [waiting_in(slots, order, "key", "key:1", "") for _ in range(3)]
    sleep(0)
    slots.leave()
    for one in waiting:
        one.join()
    assert order == ["none", "key", "s1", "key", "s2", "key", "none", "none", "none"]


def test_a_caller_that_fills_its_places_leaves_some_to_others() -> None:
    slots, order = RunSlots(1), list[str]()
    slots.enter()
    waiting = [waiting_in(slots, order, name, name, "") for name in "abcdef" for _ in range(WAITING_PER_SLOT)]
    sleep(0)
    assert order == ["refused"] * 6  # three of each of the last two
    for caller in "af":
        with pytest.raises(GatewayError, match="maxConcurrent") as caught:
            slots.enter(key=(caller, ""))
        assert caught.value.code == "too_many_runs"
    waiting.append(waiting_in(slots, order, "g", "g", ""))
    sleep(0)
    slots.leave()
    for one in waiting:
        one.join()
    assert order[6:13] == ["a", "b", "c", "d", "e", "f", "g"]
    slots.enter(0.01)


def test_cancelled_waiter_leaves_queue() -> None:
    slots, scope, outcome = RunSlots(1), CancelScope(), []
    slots.enter()

    def wait() -> None:
        try:
            with scope:
                slots.enter()
        except Cancelled:
            outcome.append("cancelled")

    waiter = spawn(wait)
    sleep(0)
    scope.cancel()
    waiter.join()
    slots.leave()
    slots.enter()  # there is room again
    assert outcome == ["cancelled"]


def test_waiter_beyond_timeout_is_refused_and_leaves_queue() -> None:
    slots = RunSlots(1)
    slots.enter()
    with pytest.raises(GatewayError, match=r"No slot became free within 0\.01 s .*maxConcurrent") as caught:
        slots.enter(0.01)
    assert (caught.value.code, caught.value.headers) == ("too_many_runs", {"Retry-After": "1"})
    slots.leave()
    slots.enter(0.01)  # there is room again


def test_no_run_waits_without_limit() -> None:
    slots = RunSlots(None)
    for _ in range(1000):
        slots.enter()


def test_raised_limit_admits_waiters_and_lowered_limit_lets_runs_finish() -> None:
    slots, entered = RunSlots(1), []

    def work(number: int) -> None:
        slots.enter()
        entered.append(number)

    workers = [spawn(work, number) for number in range(4)]
    sleep(0)
    assert entered == [0]
    slots.resize(3)
    sleep(0)
    assert entered == [0, 1, 2]
    slots.resize(1)
    slots.leave()
    slots.leave()
    sleep(0)
    assert entered == [0, 1, 2]
    slots.leave()
    sleep(0)
    assert entered == [0, 1, 2, 3]
    for worker in workers:
        worker.join()


def test_lent_slot_serves_others_and_is_taken_again_before_those_that_wait() -> None:
    slots, order = RunSlots(1), []
    first, second = RunSlot(slots), RunSlot(slots)
    first.take(1)

    def work() -> None:
        second.take(1)
        order.append("second")
        for _ in range(WAITING_PER_SLOT):  # the queue is full: the first one is not refused nevertheless
            spawn(third)
        sleep(0.02)
        order.append("second leaves")
        second.give_back()

    def third() -> None:
        slots.enter()
        order.append("third")
        slots.leave()

    other = spawn(work)
    with first.lent():
        sleep(0.01)
    order.append("first again")
    first.give_back()
    other.join()
    until(lambda: order.count("third") == WAITING_PER_SLOT)
    assert order == ["second", "second leaves", "first again", *["third"] * WAITING_PER_SLOT]


def test_lent_slot_is_not_held_after_exception() -> None:
    slots = RunSlots(1)
    slot = RunSlot(slots)
    slot.take(1)
    with pytest.raises(ValueError, match="x"), slot.lent():
        raise ValueError("x")
    slot.give_back()  # nothing to give back
    slots.enter(0.1)
    with pytest.raises(GatewayError):
        slots.enter(0.01)
