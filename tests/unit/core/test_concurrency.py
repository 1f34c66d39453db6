"""Real threads for what blocks, and bounds for what waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from gevent.monkey import get_original

from service.core.concurrency import Deadline, Timeout, WorkerThread, deadline, run_concurrently, sleep

_blocking_sleep: Callable[[float], None] = get_original("time", "sleep")
_thread_id: Callable[[], int] = get_original("threading", "get_ident")


@pytest.fixture
def worker() -> Iterator[WorkerThread]:
    worker = WorkerThread()
    yield worker
    worker.close()


def test_jobs_run_in_order_in_one_thread_that_is_not_ours(worker: WorkerThread) -> None:
    ran: list[int] = []

    def job(number: int) -> int:
        _blocking_sleep(0.002)
        ran.append(number)
        return _thread_id()

    threads = run_concurrently([lambda number=number: worker.run(job, number) for number in range(8)], 8)  # type: ignore[misc]
    assert ran == list(range(8))
    assert set(threads) != {threading.get_ident()}
    assert len(set(threads)) == 1


def test_a_blocking_job_lets_others_run(worker: WorkerThread) -> None:
    ticks: list[float] = []

    def tick() -> None:
        for _ in range(10):
            ticks.append(time.monotonic())
            sleep(0.005)

    ended: list[float] = []

    def block() -> None:
        worker.run(_blocking_sleep, 0.5)
        ended.append(time.monotonic())

    run_concurrently([block, tick], 2)
    assert ticks[-1] < ended[0]


def test_the_exception_of_a_job_is_raised_where_it_is_waited_for(worker: WorkerThread) -> None:
    with pytest.raises(ZeroDivisionError):
        worker.run(lambda: 1 // 0)
    assert worker.run(lambda: 7) == 7


def test_a_job_whose_caller_was_interrupted_disturbs_nobody(worker: WorkerThread) -> None:
    with pytest.raises(Deadline), deadline(0.01):
        worker.run(_blocking_sleep, 0.1)
    assert worker.run(lambda: "mine") == "mine"


def test_a_closed_worker_says_so(worker: WorkerThread) -> None:
    worker.close()
    worker.close()
    with pytest.raises(RuntimeError, match="closed"):
        worker.run(lambda: 7)


def test_closing_waits_for_what_was_begun() -> None:
    worker, ended = WorkerThread(), []

    def job() -> None:
        _blocking_sleep(0.1)
        ended.append(True)

    with pytest.raises(Deadline), deadline(0.01):
        worker.run(job)
    worker.close()
    assert ended == [True]


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.02])
def test_a_deadline_interrupts_once_so_that_what_is_cleaned_up_may_wait(seconds: float) -> None:
    cleaned: list[bool] = []

    def work() -> None:
        try:
            sleep(5)
        finally:
            sleep(0.06)
            cleaned.append(True)

    with pytest.raises(Deadline), deadline(seconds):
        work()
    assert cleaned


def test_a_deadline_that_was_met_interrupts_nothing_later() -> None:
    with deadline(0.02):
        pass
    with deadline(None):
        sleep(0.05)


def test_an_alarm_gives_each_block_all_of_its_time() -> None:
    alarm = Timeout(0.2)
    for _ in range(6):
        with alarm:
            sleep(0.05)
    with pytest.raises(TimeoutError), alarm:
        sleep(5)
