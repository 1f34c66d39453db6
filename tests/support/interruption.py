"""Interrupt what a test has begun, at the moment the test is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.core.concurrency import Deadline, spawn
from support.polling import until


def interrupt_once(has_begun: Callable[[], Any], job: Callable[[], object]) -> None:
    """Run `job`, end it by `Deadline` once `has_begun` returns a true value, and wait until it has let go."""

    def work() -> None:
        with pytest.raises(Deadline):
            job()

    working = spawn(work)
    until(has_begun)
    working.kill(Deadline)
    working.get()
