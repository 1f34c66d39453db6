"""A queue whose users are served in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items under paths of names: at each level names are served in turn, under one path in the order of arrival."""

    def __init__(self) -> None:
        self.size = 0
        self._items: deque[T] = deque()
        self._parts: OrderedDict[str, FairQueue[T]] = OrderedDict()

    def push(self, path: Sequence[str], item: T) -> None:
        """Add an item. All paths have the same length."""
        self.size += 1
        if not path:
            self._items.append(item)
            return
        part = self._parts.get(path[0])
        if part is None:
            part = self._parts[path[0]] = FairQueue()
        part.push(path[1:], item)

    def pop(self) -> T:
        """Remove and return the next item. Raises `IndexError` if there is none."""
        if not self._parts:
            item = self._items.popleft()
        else:
            name, part = self._parts.popitem(last=False)
            item = part.pop()
            if part.size:
                self._parts[name] = part  # behind the others
        self.size -= 1
        return item

    def remove(self, path: Sequence[str], item: T) -> None:
        """Remove an item that is under `path`."""
        self.size -= 1
        if not path:
            self._items.remove(item)
            return
        part = self._parts[path[0]]
        part.remove(path[1:], item)
        if not part.size:
            del self._parts[path[0]]

    def size_of(self, name: str) -> int:
        """Return the number of items whose path begins with `name`."""
        part = self._parts.get(name)
        return 0 if part is None else part.size
