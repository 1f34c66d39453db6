"""Jobs that run to their end although their caller is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar("T")


def shield(job: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Return `job()`. If the caller is interrupted meanwhile, wait for the end, `discard` the result, and raise that.

    For jobs that leave something behind when they are interrupted, such as the start of a process.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(job())
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            errors.append(error)

    running = gevent.spawn(run)
    try:
        running.join()
    except BaseException:
        running.join()
        for result in results:
            discard(result)
        raise
    if errors:
        raise errors[0]
    return results[0]
