"""Worker threads for blocking calls, time limits and events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest
from gevent.monkey import get_original
from support.interruption import interrupt_once

from service.core.concurrency import (
    Cancelled,
    Deadline,
    Event,
    Timeout,
    WorkerThread,
    deadline,
    run_concurrently,
    sleep,
    spawn,
)

_blocking_sleep: Callable[[float], None] = get_original("time", "sleep")
_thread_id: Callable[[], int] = get_original("threading", "get_ident")


@pytest.fixture
def worker() -> Iterator[WorkerThread]:
    worker = WorkerThread()
    yield worker
    worker.close()


def test_worker_thread_runs_jobs_in_order_in_one_other_thread(worker: WorkerThread) -> None:
    ran: list[int] = []

    def job(number: int) -> int:
        _blocking_sleep(0.002)
        ran.append(number)
        return _thread_id()

    threads = run_concurrently([lambda number=number: worker.run(job, number) for number in range(8)], 8)  # type: ignore[misc]
    assert ran == list(range(8))
    assert set(threads) != {threading.get_ident()}
    assert len(set(threads)) == 1


def test_blocking_job_lets_greenlets_run(worker: WorkerThread) -> None:
    ticked = threading.Event()

    def tick() -> None:
        for _ in range(10):
            sleep(0.005)
        ticked.set()

    spawn(tick)
    assert worker.run(ticked.wait, 60)


def test_jobs_end_with_their_interrupted_caller() -> None:
    events: list[str] = []

    def work(name: str, seconds: float) -> None:
        events.append(f"{name} began")
        try:
            sleep(seconds)
            events.append(f"{name} ended")
        except Cancelled:
            sleep(0.01)
            events.append(f"{name} cleaned up")
            raise

    jobs = [partial(work, name, seconds) for name, seconds in (("a", 0), ("b", 60), ("c", 60), ("d", 0))]
    interrupt_once(lambda: "c began" in events, lambda: run_concurrently(jobs, 2))
    assert sorted(events) == ["a began", "a ended", "b began", "b cleaned up", "c began", "c cleaned up"]


def test_interrupted_caller_waits_only_a_second_for_its_jobs() -> None:
    release, ended = Event(), []

    def refuse() -> None:
        with suppress(Cancelled):
            sleep(60)
        release.wait()
        ended.append(True)

    began = time.monotonic()
    with pytest.raises(Deadline), deadline(0.01):
        run_concurrently([refuse], 1)
    assert time.monotonic() - began >= 1
    assert not ended
    release.set()


def test_first_exception_in_order_is_raised_once_all_jobs_have_ended() -> None:
    ended: list[str] = []

    def fail(seconds: float, error: Exception) -> None:
        sleep(seconds)
        raise error

    def end_late() -> None:
        sleep(0.05)
        ended.append("c")

    jobs: list[Callable[[], None]] = [partial(fail, 0.02, KeyError()), partial(fail, 0, ValueError()), end_late]
    with pytest.raises(KeyError):
        run_concurrently(jobs, 3)
    assert ended == ["c"]


def test_exception_of_a_job_is_raised_in_its_caller(worker: WorkerThread) -> None:
    with pytest.raises(ZeroDivisionError):
        worker.run(lambda: 1 // 0)
    assert worker.run(lambda: 7) == 7


def test_job_of_an_interrupted_caller_does_not_affect_the_next(worker: WorkerThread) -> None:
    release = threading.Event()
    with pytest.raises(Deadline), deadline(0.01):
        worker.run(release.wait, 60)
    release.set()
    assert worker.run(lambda: "mine") == "mine"


def test_closed_worker_thread_raises(worker: WorkerThread) -> None:
    worker.close()
    worker.close()
    with pytest.raises(RuntimeError, match="closed"):
        worker.run(lambda: 7)


def test_close_waits_for_a_running_job() -> None:
    worker, release, ended = WorkerThread(), threading.Event(), []

    def job() -> None:
        release.wait(60)
        _blocking_sleep(0.1)
        ended.append(True)

    with pytest.raises(Deadline), deadline(0.01):
        worker.run(job)
    release.set()
    worker.close()
    assert ended == [True]


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.02])
def test_deadline_interrupts_once_so_that_cleanup_may_wait(seconds: float) -> None:
    cleaned: list[bool] = []

    def work() -> None:
        try:
            sleep(60)
        finally:
            sleep(0.06)
            cleaned.append(True)

    with pytest.raises(Deadline), deadline(seconds):
        work()
    assert cleaned


def test_deadline_that_was_met_does_not_interrupt_later_code() -> None:
    with deadline(0.02):
        pass
    with deadline(None):
        sleep(0.05)


def test_timeout_is_full_for_each_block() -> None:
    timeout = Timeout(0.2)
    for _ in range(6):
        with timeout:
            sleep(0.05)
    with pytest.raises(TimeoutError), timeout:
        sleep(60)


def test_wait_returns_when_an_earlier_waiter_gives_up_after_the_event_was_set() -> None:
    event = Event()
    earlier = spawn(event.wait)
    sleep(0)
    earlier.kill(block=False)
    event.set()
    assert event.wait(60)


def test_event_that_is_cleared_at_once_ends_the_waits_before() -> None:
    event = Event()
    ended: list[tuple[int, bool]] = []

    def wait(number: int) -> None:
        ended.append((number, event.wait(60)))

    waiting = [spawn(wait, number) for number in range(3)]
    sleep(0)
    event.set()
    event.clear()
    for one in waiting:
        one.join()
    assert ended == [(0, True), (1, True), (2, True)]
    assert not event.wait(0.01)


def test_wait_gives_up_after_its_time() -> None:
    event = Event()
    began_at = time.monotonic()
    assert not event.wait(0.1)
    assert time.monotonic() - began_at > 0.09
    assert not event.wait(0)
    assert not event.wait(-1)
    event.set()
    assert event.wait(0)


def test_wait_has_all_of_its_time_late_in_a_turn_of_the_event_loop() -> None:
    sleep(0.01)
    _blocking_sleep(0.2)
    began_at = time.monotonic()
    assert not Event().wait(0.1)
    assert time.monotonic() - began_at > 0.09


def test_event_does_not_wake_a_waiter_that_has_left() -> None:
    event, has_left, woken = Event(), Event(), []

    def work() -> None:
        with pytest.raises(Deadline), deadline(0.02):
            event.wait()
        assert not event.wait(0.01)
        has_left.set()
        began_at = time.monotonic()
        sleep(0.1)
        woken.append(time.monotonic() - began_at)

    worker = spawn(work)
    has_left.wait()
    event.set()
    worker.join()
    assert woken[0] > 0.09


def test_interrupted_wait_that_was_set_at_the_same_time_wakes_nothing() -> None:
    event, woken = Event(), []

    def work() -> None:
        with pytest.raises(Deadline):
            event.wait()
        began_at = time.monotonic()
        sleep(0.1)
        woken.append(time.monotonic() - began_at)

    worker = spawn(work)
    sleep(0)
    worker.kill(Deadline, block=False)
    event.set()
    worker.join()
    assert woken[0] > 0.09
