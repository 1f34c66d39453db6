"""Errors inside successful responses."""

from __future__ import annotations

from typing import Any

import pytest

from service.models.errors.answer_errors import find_bare_error, find_error


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("event", [{"detail": "bad"}, {"message": "ok", "errors": ["bad"]}, {"msg": nested(900)}])
def test_event_with_a_message_alone_is_an_error(event: dict[str, Any]) -> None:
    assert find_bare_error(event) is event


@pytest.mark.parametrize("event", [{}, {"message": "OK."}, {"detail": "bad", "code": 200}, {"errors": [[], {"a": 0}]}])
def test_event_that_states_no_failure_is_none(event: dict[str, Any]) -> None:
    assert find_bare_error(event) is None


def test_error_of_any_depth_is_found() -> None:
    error = {"code": 0, "inner": nested(900)}
    assert find_error({"error": error}) is error
    assert find_error({"error": {"code": 0, "inner": nested(5)}}) is None
