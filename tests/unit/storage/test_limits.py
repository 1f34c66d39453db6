"""Limits over several gateways: what a sliding window has, what is leased, and what becomes of what is not used."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
import sqlalchemy as sa
from support.clock import Clock

from service.core.rate_limits import RateLimits
from service.storage.cluster.membership import Membership
from service.storage.database.caller_schema import limit_usage
from service.storage.database.database import Database
from service.storage.limits.counters import WINDOW_MS, Exchange, Exchanged, LimitCounters, LimitReached
from service.storage.limits.sliding_log import MAX_ENTRIES, SlidingLog

Exchanger = Callable[..., Exchanged]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def exchange(database: Database, clock: Clock) -> Exchanger:
    usage = LimitCounters(database, clock)

    def make(limits: RateLimits, asked: int | tuple[int, ...] = 1, gateway: str = "a", **rest: object) -> Exchanged:
        tokens = (0,) * asked if isinstance(asked, int) else asked
        return usage.exchange(Exchange("key:x", limits, gateway, tokens, **rest))  # type: ignore[arg-type]

    return make


def admitted(found: Exchanged) -> int:
    return found.refusals.count(None)


def most_in_a_window(times: list[float], window: float) -> int:
    return max(sum(begin <= at < begin + window for at in times) for begin in times)


def test_a_log_forgets_what_has_left_the_window_and_never_before() -> None:
    rng, log, truth = random.Random(7), SlidingLog(1000), list[int]()
    now = 0
    for _ in range(3000):
        now += rng.randrange(9)
        log.expire(now)
        log.add(now, 1)
        truth = [at for at in truth if at + 1000 > now] + [now]
        assert len(truth) <= log.used <= len(truth) + sum(at + 1005 > now >= at + 1000 for at in range(now - 1005, now))
        assert len(log.entries) <= MAX_ENTRIES
        assert all(first < second for (first, _), (second, _) in pairwise(log.entries))
    log.expire(now + 1005)
    assert (log.used, log.entries) == (0, [])


def test_what_is_taken_back_leaves_room_and_time_of_room_is_exact() -> None:
    log = SlidingLog(1000, [(0, 2), (300, 3)])
    assert [log.room_at(amount, 6, 500) for amount in (1, 2, 3, 4, 6, 60)] == [500, 1000, 1000, 1300, 1300, 1300]
    log.remove(300, 2)
    assert log.entries == [(0, 2), (300, 1)]
    assert log.room_at(3, 6, 500) == 500
    log.remove(0, 99)
    assert (log.used, log.quota(6, 500).remaining) == (1, 5)


def test_what_is_taken_back_from_a_coarse_log_is_found_there() -> None:
    log = SlidingLog(10_000)
    for at_ms in range(MAX_ENTRIES + 1):
        log.add(10 * at_ms + 1, 1)
    log.remove(101, 1)
    assert log.used == MAX_ENTRIES


def test_any_sliding_minute_has_the_limit(exchange: Exchanger, clock: Clock) -> None:
    rng, limits, times = random.Random(3), RateLimits(60), list[float]()
    began = clock.now
    while clock.now < began + 300:
        clock.now += rng.random()
        found = exchange(limits, rng.randrange(1, 9), rng.choice("ab"))
        times += [clock.now] * admitted(found)
    assert most_in_a_window(times, 60) == 60
    assert len(times) >= 5 * 60 - 1
    refused = exchange(limits).refusals[0]
    assert refused is not None
    assert refused == LimitReached("requests", refused.room_at_ms)
    clock.now = refused.room_at_ms / 1000
    assert admitted(exchange(limits)) == 1


def test_callers_that_were_refused_come_back_one_after_the_other(exchange: Exchanger, clock: Clock) -> None:
    """A hundred callers that always ask begin with a burst; later every sliding minute has 60, give or take one."""
    times, began = list[float](), clock.now
    while clock.now < began + 400:
        times += [clock.now - began] * admitted(exchange(RateLimits(60), 100, "a" if clock.now % 2 < 1 else "b"))
        clock.now += 0.1
    assert [at for at in times if at < 60] == [0.0] * 60
    settled = [sum(begin <= at < begin + 60 for at in times) for begin in range(120, 340)]
    assert (min(settled), max(settled)) in ((59, 60), (60, 60))
    assert max(sum(begin <= at < begin + 1 for at in times) for begin in times if begin) <= 3
    clock.now += 121  # nobody asks any more: a burst is not held against those who come later
    assert admitted(exchange(RateLimits(60), 40)) == 40


def test_leases_of_two_gateways_keep_to_the_limit(exchange: Exchanger, clock: Clock) -> None:
    """What is leased is used at its last moment; what is not used is given back."""
    limits, times, lease_ms = RateLimits(600), list[float](), 1000
    began, unused = clock.now, {"a": [(0, 0)], "b": [(0, 0)]}
    rng = random.Random(5)
    while clock.now < began + 200:
        for gateway in "ab":
            found = exchange(
                limits, rng.randrange(8), gateway, spare_requests=99, lease_ms=lease_ms, unused=unused[gateway]
            )
            assert found.spare_requests <= 6
            times += [clock.now] * admitted(found)
            left = rng.randrange(found.spare_requests + 1)
            times += [clock.now + lease_ms / 1000] * (found.spare_requests - left)
            unused[gateway] = [(found.spare_until_ms, left)]
        clock.now += 0.3 + rng.random()
    assert most_in_a_window(times, 60) <= 600
    assert len(times) > 3 * 600


def test_tokens_are_settled(exchange: Exchanger, clock: Clock) -> None:
    limits = RateLimits(tokens_per_minute=1000)
    first = exchange(limits, (700,))
    assert admitted(first) == 1
    refusal = exchange(limits, (400,)).refusals[0]
    assert refusal == LimitReached("tokens", first.now_ms + WINDOW_MS)
    assert admitted(exchange(limits, (400,), settled=[(first.now_ms, -200)])) == 1  # 500 and 400
    clock.now += 10
    assert admitted(exchange(limits, (1,), settled=[(first.now_ms, 5000)])) == 0  # one used far more than was thought
    clock.now += 59
    assert admitted(exchange(limits, (1,))) == 0
    clock.now += 1
    assert admitted(exchange(limits, (9_999,))) == 1  # more than the limit, when nothing else counts
    assert admitted(exchange(limits, (1,))) == 0


def test_run_longer_than_a_minute_gives_back_nothing_of_what_others_use(exchange: Exchanger, clock: Clock) -> None:
    limits = RateLimits(tokens_per_minute=1000)
    long_run = exchange(limits, (900,))
    clock.now += 61
    assert admitted(exchange(limits, (800,))) == 1
    assert admitted(exchange(limits, (800,), settled=[(long_run.now_ms, -890)])) == 0


def test_runs_at_once_are_those_of_living_gateways(exchange: Exchanger, database: Database, clock: Clock) -> None:
    limits, ids = RateLimits(concurrent_runs=3), iter("ab")
    first, second = (Membership(database, clock=clock, new_id=lambda: next(ids)) for _ in range(2))
    first.join()
    second.join()
    assert admitted(exchange(limits, 2, "a")) == 2
    found = exchange(limits, 2, "b")
    assert found.refusals == (None, LimitReached("runs", found.now_ms + 1000))
    assert admitted(exchange(limits, 1, "a", running=1)) == 1  # one of its two has ended
    assert admitted(exchange(limits, 1, "b", running=1)) == 0
    first.leave()
    assert admitted(exchange(limits, 3, "b", running=1)) == 2
    second.leave()


def test_a_row_that_counts_nothing_is_pruned(exchange: Exchanger, database: Database, clock: Clock) -> None:
    exchange(RateLimits(60))
    usage, now_ms = LimitCounters(database, clock), int(clock.now * 1000)
    assert usage.prune(now_ms + WINDOW_MS) == 0
    assert usage.prune(now_ms + 100 * WINDOW_MS) == 1
    assert database.fetch(sa.select(limit_usage.c.subject), {}) == []


def test_times_of_before_the_clock_was_set_back_do_not_count(exchange: Exchanger, clock: Clock) -> None:
    assert admitted(exchange(RateLimits(2), 3)) == 2
    clock.now -= 3600
    assert admitted(exchange(RateLimits(2), 3)) == 2


def test_the_clock_is_that_of_the_database(database: Database) -> None:
    found = LimitCounters(database).exchange(Exchange("key:y", RateLimits(1), "a", (0,)))
    assert admitted(found) == 1
    assert abs(found.now_ms / 1000 - time.time()) < 60
