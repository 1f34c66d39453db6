"""The budget of bytes in flight: waiting, refusal, order, and eviction of slow senders and large output."""

from __future__ import annotations

import time

import pytest

from service.core.byte_budget import ByteBudget, Hold
from service.core.concurrency import sleep, spawn
from service.core.errors import GatewayError

MIB = 1024 * 1024


def test_released_bytes_are_available_again() -> None:
    budget = ByteBudget(8 * MIB)
    first = budget.hold()
    first.take(6 * MIB)
    first.release()
    assert budget.used_bytes == 0
    budget.hold().take(6 * MIB)


def test_without_room_large_data_waits_and_is_refused_with_retry_after() -> None:
    budget = ByteBudget(8 * MIB, wait_seconds=0.1)
    budget.hold().take(6 * MIB)
    before = time.monotonic()
    with pytest.raises(GatewayError, match="maxInFlightBytes") as refused:
        budget.hold().take(2 * MIB)
    assert time.monotonic() - before >= 0.1
    assert (refused.value.code, refused.value.status) == ("overloaded", 503)
    assert int(refused.value.headers["Retry-After"]) > 0
    assert budget.used_bytes == 6 * MIB


def test_a_quarter_is_left_for_small_data() -> None:
    budget = ByteBudget(8 * MIB, wait_seconds=0.1)
    budget.hold().take(6 * MIB)
    for _ in range(2):
        budget.hold().take(MIB)
    with pytest.raises(GatewayError):
        budget.hold().take(MIB)


def test_waiting_data_is_admitted_in_order_when_room_comes() -> None:
    budget, order = ByteBudget(8 * MIB), []
    first = budget.hold()
    first.take(6 * MIB)

    def take(name: str, size: int) -> None:
        budget.hold().take(size)
        order.append(name)

    takers = [spawn(take, "large", 4 * MIB), spawn(take, "next", 2 * MIB)]
    sleep(0.05)
    assert order == []
    first.release()
    for taker in takers:
        taker.join(5)
    assert order == ["large", "next"]


def test_data_larger_than_the_budget_is_admitted_alone() -> None:
    budget = ByteBudget(8 * MIB, wait_seconds=0.1)
    hold = budget.hold()
    hold.take(100 * MIB)
    with pytest.raises(GatewayError):
        budget.hold().take(2 * MIB)
    hold.release()
    assert budget.used_bytes == 0


def test_a_shared_hold_is_given_back_by_its_last_owner() -> None:
    budget = ByteBudget(8 * MIB)
    hold = budget.hold()
    hold.take(MIB)
    other = hold.share()
    hold.release()
    assert budget.used_bytes == MIB
    other.release()
    assert budget.used_bytes == 0


def test_slow_senders_make_room_for_others_and_quick_ones_do_not() -> None:
    now = [0.0]
    budget, evicted = ByteBudget(8 * MIB, clock=lambda: now[0]), []

    def sender(name: str, arrived: int) -> Hold:
        hold = budget.hold(lambda: evicted.append(name))
        hold.take(3 * MIB)
        hold.begin_arrival()
        hold.arrived_bytes = arrived
        return hold

    sender("quick", MIB)
    slow = sender("slow", 1000)
    now[0] = 4.0
    waiting = spawn(budget.hold().take, 3 * MIB)
    waiting.join(5)
    assert waiting.successful()
    assert evicted == ["slow"]
    slow.release()
    assert budget.used_bytes == 6 * MIB


def test_output_beyond_the_limit_evicts_the_largest_holder_once() -> None:
    budget, evicted = ByteBudget(8 * MIB), []
    holds = [budget.hold(lambda name=name: evicted.append(name)) for name in ("small", "large", "growing")]  # type: ignore[misc]
    holds[0].add(1 * MIB)
    holds[1].add(5 * MIB)
    holds[2].add(2 * MIB)
    assert evicted == []
    holds[2].add(MIB)
    holds[2].add(MIB)
    assert evicted == ["large"]
    holds[1].release()
    assert budget.used_bytes == 5 * MIB


def test_output_pauses_until_what_was_evicted_has_left() -> None:
    budget = ByteBudget(8 * MIB)
    evicted, growing, small = budget.hold(lambda: None), budget.hold(), budget.hold()
    growing.add(1 * MIB)
    evicted.add(8 * MIB)
    paused = spawn(growing.pause_output)
    for holder in (evicted, small):
        holder.pause_output()
    sleep(0.05)
    assert evicted.is_evicted
    assert not paused.dead
    evicted.release()
    paused.join(5)
    assert paused.successful()


def test_output_pauses_only_for_a_while_if_nothing_leaves() -> None:
    budget = ByteBudget(8 * MIB, wait_seconds=0.05)
    growing, leaving = budget.hold(), budget.hold(lambda: None)
    growing.add(1 * MIB)
    leaving.add(8 * MIB)
    growing.pause_output()
    assert budget.used_bytes == 9 * MIB


def test_a_larger_limit_admits_what_waits() -> None:
    budget = ByteBudget(8 * MIB)
    budget.hold().take(6 * MIB)
    waiting = spawn(budget.hold().take, 6 * MIB)
    sleep(0.05)
    assert not waiting.dead
    budget.resize(64 * MIB)
    waiting.join(5)
    assert waiting.successful()


def test_without_room_for_all_that_began_the_oldest_ends_and_the_youngest_is_refused() -> None:
    budget, results = ByteBudget(8 * MIB, wait_seconds=0.1), {}

    def receive(name: int) -> None:
        hold = budget.hold()
        try:
            for _ in range(4):
                hold.take(MIB)
                sleep(0)
            results[name] = "whole"
        except GatewayError as error:
            results[name] = error.code
        hold.release()

    senders = [spawn(receive, name) for name in range(3)]
    for sender in senders:
        sender.join(10)
    assert (results[0], results[2]) == ("whole", "overloaded")
    assert budget.used_bytes == 0
