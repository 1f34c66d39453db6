"""Records and their copies."""

from __future__ import annotations

import dataclasses
from dataclasses import field

import pytest

from service.core.dataclass import record, replace


@record
class Span:
    """A record with a default, a hidden field and a check."""

    first: int
    last: int = 9
    name: str = field(default="span", repr=False)

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError("ends before it begins")


@record
class Point:
    """A record of one field."""

    place: int


@pytest.mark.parametrize("changes", [{}, {"first": 3}, {"last": 4, "name": "other"}])
def test_copy_is_that_of_the_library(changes: dict[str, object]) -> None:
    span = Span(2, 8)
    copy = replace(span, **changes)
    assert copy == dataclasses.replace(span, **changes)  # type: ignore[arg-type]
    assert copy is not span
    assert span == Span(2, 8)


def test_record_of_one_field_is_copied() -> None:
    assert replace(Point(1)) == Point(1)
    assert replace(Point(1), place=2) == Point(2)


def test_copy_is_checked() -> None:
    with pytest.raises(ValueError, match="ends before"):
        replace(Span(2), first=10)


def test_unknown_field_is_an_error() -> None:
    with pytest.raises(TypeError):
        replace(Span(2), middle=1)
