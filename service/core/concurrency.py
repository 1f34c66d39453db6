"""Concurrency primitives: greenlets, events, deadlines, cancellation, threads for blocking calls.

The rest of the gateway is plain sequential code; gevent's own names appear only here, in `disconnect`, in `shield`,
in the server and where providers are read. Works with and without a patched standard library, as long as everything
stays in one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar, cast

import gevent
import gevent.pool
import gevent.socket
import gevent.ssl
import gevent.threadpool
from gevent.hub import Waiter
from gevent.lock import RLock, Semaphore
from gevent.monkey import get_original

from service.core.work_context import WorkContext, current_work

__all__ = [
    "CancelScope",
    "Cancelled",
    "Deadline",
    "Event",
    "RLock",
    "Semaphore",
    "ThreadPool",
    "Timeout",
    "WorkerThread",
    "current_turn",
    "deadline",
    "get_addresses",
    "on_signal",
    "pause",
    "run_concurrently",
    "sleep",
    "spawn",
    "wait_for_input",
    "wait_readable",
]

T = TypeVar("T")

#: The unpatched `socket.getaddrinfo`, for a `WorkerThread` or `ThreadPool`.
get_addresses: Callable[..., list[Any]] = get_original("socket", "getaddrinfo")

_JobQueue: Any = get_original("queue", "SimpleQueue")
_start_thread: Callable[..., object] = get_original("_thread", "start_new_thread")

#: Time that an interrupted `run_concurrently` gives its jobs to clean up.
CLEANUP_SECONDS = 1.0

# Jobs may begin with a blocking call (starting a process): other greenlets run in between.
_BETWEEN_STARTS_SECONDS = 0.001

_PAUSE_SECONDS = 0.0001
_SOON = 1e-6  # the loop treats a timer of 0 as none


def spawn(function: Callable[..., object], *args: object) -> gevent.Greenlet:
    """Run `function(*args)` in a new greenlet. It must handle its own exceptions."""
    return gevent.spawn(function, *args)


@contextmanager
def on_signal(number: int, callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` in a new greenlet for each signal that arrives while the block runs."""
    watcher = gevent.signal_handler(number, callback)
    try:
        yield
    finally:
        watcher.cancel()


def sleep(seconds: float) -> None:
    """Suspend the current greenlet for at least `seconds`."""
    gevent.sleep(seconds)


def pause() -> None:
    """Let other greenlets run, those included that wait for sockets and timers.

    After `sleep(0)` gevent runs up to fifty such callbacks before it looks at sockets and timers.
    """
    gevent.sleep(_PAUSE_SECONDS)


def current_turn() -> int:
    """Return the number of the event loop's turn, in which no greenlet waits for a socket or timer twice."""
    return int(gevent.get_hub().loop.iteration)


def wait_readable(fd: int) -> None:
    """Wait until a read from the pipe or socket `fd` will not block."""
    gevent.socket.wait_read(fd)


def wait_for_input(sock: Any) -> None:
    """Wait until a read from gevent's `sock`, with or without TLS, finds something, or its end; others run meanwhile.

    Where nothing has arrived yet, this costs 10,000 instructions less than the read in vain with which gevent's `recv`
    begins. Returns at once for other sockets, and if TLS has decrypted bytes.
    """
    if isinstance(sock, gevent.socket.socket) and not (isinstance(sock, gevent.ssl.SSLSocket) and sock.pending()):
        sock._wait(sock._read_event)  # noqa: SLF001 - as its `recv` does


def run_concurrently(jobs: Sequence[Callable[[], T]], at_most: int) -> list[T]:
    """Run each job in its own greenlet, at most `at_most` at a time, and return the results in order.

    They are part of the caller's work. All have ended when it returns or raises the first exception in their order.
    When the caller is interrupted, jobs that have not started are dropped and the others get `Cancelled` and a second
    to clean up.
    """
    work, places = current_work.get(), Semaphore(at_most)
    started: list[gevent.Greenlet] = []
    try:
        for job in jobs:
            if started:
                gevent.sleep(_BETWEEN_STARTS_SECONDS)
            places.acquire()
            started.append(gevent.spawn(_settled_in, work, job, places))
        settled = [greenlet.get() for greenlet in started]
    except BaseException:
        running = [greenlet for greenlet in started if not greenlet.ready()]
        gevent.pool.Group(running).kill(Cancelled, timeout=CLEANUP_SECONDS)
        raise
    results = []
    for outcome, error in settled:
        if error is not None:
            raise error
        results.append(outcome)
    return results


class Deadline(BaseException):
    """Raised inside `deadline(...)` when the time is up. Not an `Exception`, so that only its owner handles it."""


class Event:
    """A flag for greenlets of one thread. `set` ends every wait that has begun, even if `clear` follows at once.

    gevent's own, which threads could share, costs half as much again.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: list[Waiter] = []

    def is_set(self) -> bool:
        """Return True if the flag is set."""
        return self._is_set

    def set(self) -> None:
        """Set the flag. Those that wait go on later, from the event loop, in their order."""
        self._is_set = True
        for waiter in self._waiters:
            gevent.get_hub().loop.run_callback(waiter.switch, True)
        self._waiters.clear()

    def clear(self) -> None:
        """Reset the flag."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set, or for `timeout` seconds at most; return False if it was not set in time."""
        if self._is_set:
            return True
        waiter, timer = Waiter(), None
        if timeout is not None:
            timer = gevent.get_hub().loop.timer(max(timeout, 0.0))
            timer.start(waiter.switch, False, update=True)  # from now, not from the beginning of the loop's turn
        self._waiters.append(waiter)
        try:
            return waiter.get() or self._is_set
        finally:
            if timer is not None:
                timer.close()
            if waiter in self._waiters:
                self._waiters.remove(waiter)


class Timeout:
    """Reusable time limit for blocks, one at a time: raises `error` inside a block after `seconds`.

    `None` is no limit.
    """

    def __init__(self, seconds: float | None, error: type[BaseException] = TimeoutError) -> None:
        self._timer: Any = None
        if seconds is not None:
            seconds = max(seconds, _SOON)
            self._timer = gevent.get_hub().loop.timer(seconds, seconds)
        self._error = error
        self._inside: gevent.Greenlet | None = None

    def __enter__(self) -> None:
        self._inside = gevent.getcurrent()
        if self._timer is not None:
            self._timer.again(self._expire, self._inside)  # `start` would resume with the remaining time

    def restart(self) -> None:
        """Give the block that is running all of the time again."""
        if self._timer is not None:
            self._timer.again(self._expire, self._inside)

    def __exit__(self, *exc_info: object) -> None:
        self._inside = None
        if self._timer is not None:
            self._timer.stop()

    def _expire(self, greenlet: gevent.Greenlet) -> None:
        self._timer.stop()  # fire once, so that cleanup code in the block may wait
        greenlet.throw(self._error)


def deadline(seconds: float | None) -> Timeout:
    """Limit the time of a block: raises `Deadline` inside it after `seconds`; `None` is no limit."""
    return Timeout(seconds, Deadline)


class Cancelled(BaseException):
    """Thrown into a greenlet that is inside a `CancelScope` when the scope is cancelled."""


class CancelScope:
    """A block of work that another greenlet may cancel.

    `cancel()` before or during the block ends the block with `Cancelled`; after the block it has no effect, so that
    subsequent work (committing a result) is never interrupted. For one use by one greenlet.
    """

    cancelled = False
    _inside: gevent.Greenlet | None = None

    def cancel(self) -> None:
        """End the block, now or as soon as it is entered. Idempotent."""
        if self.cancelled:
            return
        self.cancelled = True
        gevent.get_hub().loop.run_callback(self._deliver)

    def _deliver(self) -> None:
        # In the event loop no greenlet can leave the block between the check and the throw.
        if self._inside is not None:
            self._inside.throw(Cancelled())

    def __enter__(self) -> Self:
        if self.cancelled:
            raise Cancelled
        self._inside = gevent.getcurrent()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._inside = None


class WorkerThread:
    """A real thread that runs jobs in order, so that blocking calls (SQLite, fsync) do not block the event loop.

    Jobs must not use patched functions. An instance belongs to the thread that creates it. A job costs half as much
    as in a `ThreadPool`.
    """

    def __init__(self) -> None:
        self._jobs: Any = _JobQueue()
        self._done: deque[tuple[Waiter, object]] = deque()
        self._closed = self._ended = False
        self._notifier = gevent.get_hub().loop.async_()
        self._notifier.start(self._deliver_results)
        _start_thread(self._work, ())

    def run(self, job: Callable[..., T], *args: Any) -> T:
        """Run `job(*args)` in the thread and return its result or raise its exception.

        Raises `RuntimeError` after `close`.
        """
        if self._closed:
            raise RuntimeError("the worker thread is closed")
        return self._submit(job, args)

    def close(self) -> None:
        """Finish the submitted jobs and end the thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._submit(self._end, ())
            self._notifier.close()

    def _submit(self, job: Callable[..., T], args: tuple[Any, ...]) -> T:
        waiter = Waiter()
        self._jobs.put((waiter, job, args))
        outcome, error = waiter.get()
        if error is not None:
            raise error
        return cast(T, outcome)

    def _work(self) -> None:
        while not self._ended:
            waiter, job, args = self._jobs.get()
            self._done.append((waiter, _settled(job, args)))
            del waiter, job, args  # or they would stay alive until the next job
            self._notifier.send()

    def _end(self) -> None:
        self._ended = True

    def _deliver_results(self) -> None:
        while self._done:
            waiter, outcome = self._done.popleft()
            waiter.switch(outcome)


class ThreadPool:
    """Up to `threads` real threads for blocking calls; each ends after `idle_seconds` without a job.

    Jobs must not use patched functions.
    """

    def __init__(self, threads: int, idle_seconds: float) -> None:
        self._pool = gevent.threadpool.ThreadPool(threads, idle_task_timeout=idle_seconds)

    def run(self, job: Callable[..., T], *args: Any) -> T:
        """Run `job(*args)` in a thread and return its result or raise its exception."""
        outcome, error = self._pool.apply(_settled, (job, args))
        if error is not None:
            raise error
        return cast(T, outcome)


def _settled_in(work: WorkContext, job: Callable[..., T], places: Semaphore) -> tuple[Any, BaseException | None]:
    current_work.set(work)
    settled = _settled(job, ())
    places.release()
    return settled


def _settled(job: Callable[..., T], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    # gevent's pools print the traceback of an exception that leaves a job, so none does.
    try:
        return job(*args), None
    except BaseException as error:  # noqa: BLE001  # the caller raises it
        return None, error
