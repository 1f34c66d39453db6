"""The latest result of a function, for calls that mostly have the same arguments as the one before."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Latest(Generic[P, T]):
    """A function that returns its latest result again when it is called with the same objects.

    Arguments are given by position, compared by identity and kept alive; they and the result must not change.
    """

    def __init__(self, function: Callable[P, T]) -> None:
        self._function = function
        self._kept: tuple[tuple[Any, ...], T] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function, or return its latest result."""
        if self._kept is None or not all(map(is_, args, self._kept[0])):
            self._kept = args, self._function(*args, **kwargs)
        return self._kept[1]
