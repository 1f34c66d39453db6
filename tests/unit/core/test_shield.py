"""Jobs that are completed although their caller is interrupted."""

from __future__ import annotations

import pytest

from service.core.concurrency import Deadline, deadline, sleep
from service.core.shield import shield


def test_result_is_returned_and_kept() -> None:
    discarded: list[str] = []
    assert shield(lambda: "tea", discarded.append) == "tea"
    assert discarded == []


def test_error_of_job_is_raised() -> None:
    def fail() -> None:
        raise OSError("no process can be started")

    with pytest.raises(OSError, match="no process"):
        shield(fail, lambda _: None)


def test_result_is_discarded_when_caller_is_interrupted() -> None:
    discarded: list[str] = []

    def start() -> str:
        sleep(0.05)
        return "started"

    with pytest.raises(Deadline), deadline(0.01):
        shield(start, discarded.append)
    assert discarded == ["started"]


def test_interrupted_caller_of_job_that_fails_is_interrupted() -> None:
    def fail() -> str:
        sleep(0.05)
        raise OSError("no process can be started")

    discarded: list[str] = []
    with pytest.raises(Deadline), deadline(0.01):
        shield(fail, discarded.append)
    assert discarded == []
