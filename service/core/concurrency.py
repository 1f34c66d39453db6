"""Everything that waits: greenlets, events, deadlines, real threads and the eye on a caller's connection.

The rest of the Gateway is plain sequential code and takes what it needs from here; gevent's own names appear only
here, in `__main__`, in the server and in the provider transport. Works whether or not the standard library is patched,
as long as all of it stays in one thread.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar, cast

import gevent
import gevent.pool
import gevent.socket
import gevent.threadpool
from gevent.event import Event
from gevent.hub import Waiter
from gevent.lock import RLock
from gevent.monkey import get_original

__all__ = [
    "CancelScope",
    "Cancelled",
    "Deadline",
    "Event",
    "RLock",
    "Timeout",
    "Worker",
    "WorkerPool",
    "deadline",
    "get_addresses",
    "on_signal",
    "run_side_by_side",
    "sleep",
    "spawn",
    "wait_readable",
    "watch_hangup",
]

T = TypeVar("T")

#: `socket.getaddrinfo` as it was before it was patched, for a `Worker`.
get_addresses: Callable[..., list[Any]] = get_original("socket", "getaddrinfo")

_JobQueue: Any = get_original("queue", "SimpleQueue")
_start_thread: Callable[..., object] = get_original("_thread", "start_new_thread")

#: How long `run_side_by_side` waits for jobs to let go once it is interrupted.
LET_GO_SECONDS = 1.0

# Jobs may begin with what holds everybody up (starting a process): whoever else is ready comes in between.
_BETWEEN_STARTS_SECONDS = 0.001

_SOON = 1e-6  # the loop takes a timer of 0 for none
_READABLE = 1  # gevent's READ flag for an io watcher


def spawn(function: Callable[..., object], *args: object) -> gevent.Greenlet:
    """Run `function(*args)` beside the caller. It must handle its own exceptions."""
    return gevent.spawn(function, *args)


@contextmanager
def on_signal(number: int, callback: Callable[[], None]) -> Iterator[None]:
    """Have the signal call `callback`, in a greenlet of its own, while the block runs."""
    watcher = gevent.signal_handler(number, callback)
    try:
        yield
    finally:
        watcher.cancel()


def sleep(seconds: float) -> None:
    """Let others run for at least `seconds`."""
    gevent.sleep(seconds)


def wait_readable(fd: int) -> None:
    """Wait until reading from the pipe or socket `fd` will not block."""
    gevent.socket.wait_read(fd)


def run_side_by_side(jobs: Sequence[Callable[[], T]], at_most: int) -> list[T]:
    """Run each job in a greenlet of its own, at most `at_most` at once, and return their results in order.

    All have ended when it returns or raises the first job's exception, if any raised. When the caller itself is
    interrupted, `Cancelled` is thrown into the jobs that run, the others never begin, and they have a second to let go.
    """
    pool = gevent.pool.Pool(at_most)
    try:
        outcomes: list[gevent.Greenlet] = []
        for job in jobs:
            if outcomes:
                gevent.sleep(_BETWEEN_STARTS_SECONDS)
            outcomes.append(pool.spawn(_settled, job, ()))
        pool.join()
    finally:
        pool.kill(Cancelled, timeout=LET_GO_SECONDS)
    results = []
    for outcome, error in (greenlet.get() for greenlet in outcomes):
        if error is not None:
            raise error
        results.append(outcome)
    return results


class Deadline(BaseException):
    """Raised inside `deadline(...)` when the time is up. Not an `Exception`: only its owner handles it."""


class Timeout:
    """Bounds the time of blocks, one at a time: raises `error` inside one that takes longer than `seconds`.

    `None` never does. It can be used again and again.
    """

    def __init__(self, seconds: float | None, error: type[BaseException] = TimeoutError) -> None:
        self._timer: Any = None
        if seconds is not None:
            seconds = max(seconds, _SOON)
            self._timer = gevent.get_hub().loop.timer(seconds, seconds)
        self._error = error

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.again(self._ring, gevent.getcurrent())  # started, it would go on with what was left

    def __exit__(self, *exc_info: object) -> None:
        if self._timer is not None:
            self._timer.stop()

    def _ring(self, greenlet: gevent.Greenlet) -> None:
        self._timer.stop()  # once: what is cleaned up in the block may wait, too
        greenlet.throw(self._error)


def deadline(seconds: float | None) -> Timeout:
    """Bound the time of a block: raises `Deadline` inside it when `seconds` have passed; `None` never does."""
    return Timeout(seconds, Deadline)


class Cancelled(BaseException):
    """Thrown into a greenlet that is inside a `CancelScope` when the scope is cancelled."""


class CancelScope:
    """A stretch of work that another greenlet may end.

    `cancel()` before the block, or inside it, ends the block with `Cancelled`; after the block it does nothing, so
    what follows (committing a result) is never cut. One use, one greenlet inside.
    """

    def __init__(self) -> None:
        self._inside: gevent.Greenlet | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """End the block, now or as soon as it is entered. Twice is a no-op."""
        if self.cancelled:
            return
        self.cancelled = True
        gevent.get_hub().loop.run_callback(self._deliver)

    def _deliver(self) -> None:
        # Runs in the event loop, where it is certain whether the block has been left meanwhile.
        if self._inside is not None:
            self._inside.throw(Cancelled())

    def __enter__(self) -> Self:
        if self.cancelled:
            raise Cancelled
        self._inside = gevent.getcurrent()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._inside = None


class Worker:
    """A real thread that runs jobs in order, so that a blocking call (SQLite, fsync) never stops the others.

    Jobs must use nothing that is patched. It belongs to the thread that makes it. A job through it takes half of what
    one through a `WorkerPool` takes.
    """

    def __init__(self) -> None:
        self._jobs: Any = _JobQueue()
        self._done: deque[tuple[Waiter, object]] = deque()
        self._closed = self._ended = False
        self._bell = gevent.get_hub().loop.async_()
        self._bell.start(self._hand_back)
        _start_thread(self._work, ())

    def run(self, job: Callable[..., T], *args: Any) -> T:
        """Run `job(*args)` in the thread, wait for it, return its result or raise its exception.

        Raises `RuntimeError` once the worker is closed.
        """
        if self._closed:
            raise RuntimeError("the worker is closed")
        return self._hand_over(job, args)

    def close(self) -> None:
        """Finish what was begun and end the thread. Twice is a no-op."""
        if not self._closed:
            self._closed = True
            self._hand_over(self._end, ())
            self._bell.close()

    def _hand_over(self, job: Callable[..., T], args: tuple[Any, ...]) -> T:
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
            del waiter, job, args  # what they hold is not to be held until the next ones come
            self._bell.send()

    def _end(self) -> None:
        self._ended = True

    def _hand_back(self) -> None:
        while self._done:
            waiter, outcome = self._done.popleft()
            waiter.switch(outcome)


class WorkerPool:
    """Up to `threads` real threads for calls that block, each ending when it had nothing to do for `idle_seconds`.

    Jobs must use nothing that is patched.
    """

    def __init__(self, threads: int, idle_seconds: float) -> None:
        self._pool = gevent.threadpool.ThreadPool(threads, idle_task_timeout=idle_seconds)

    def run(self, job: Callable[..., T], *args: Any) -> T:
        """Run `job(*args)` in a thread, wait for it, return its result or raise its exception."""
        outcome, error = self._pool.apply(_settled, (job, args))
        if error is not None:
            raise error
        return cast(T, outcome)


def _settled(job: Callable[..., T], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    # Pools print the traceback of whatever escapes a job, so nothing escapes.
    try:
        return job(*args), None
    except BaseException as error:  # noqa: BLE001  # the caller raises it
        return None, error


class watch_hangup:  # noqa: N801 - reads like `deadline` and `suppress`
    """Call `on_hangup` once, soon after the peer closes `connection`, while the block runs.

    Bytes the peer sends meanwhile (a pipelined request) are left unread and end the watch. `on_hangup` runs in the
    event loop: it must not wait.
    """

    def __init__(self, connection: socket.socket | None, on_hangup: Callable[[], None]) -> None:
        self._connection = connection
        self._on_hangup = on_hangup
        self._watcher: Any = None

    def __enter__(self) -> None:
        if self._connection is not None and self._connection.fileno() >= 0:
            self._watcher = gevent.get_hub().loop.io(self._connection.fileno(), _READABLE)
            self._watcher.start(self._on_readable)

    def _on_readable(self) -> None:
        self._watcher.stop()
        if _peer_closed(self._connection):
            self._on_hangup()

    def __exit__(self, *exc_info: object) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()


def _peer_closed(connection: Any) -> bool:
    raw = getattr(connection, "_sock", connection)  # gevent's wrapper waits; the socket inside does not
    try:
        return bool(raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)
