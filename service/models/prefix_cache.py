"""Results computed from the beginnings of conversations, so that a further request computes only its new messages."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from service.core.dataclass import record
from service.core.messages import Message

_BYTES_A_MESSAGE = 16  # of the tuple that holds it; the messages themselves belong to the session

T = TypeVar("T")


@record
class Prefix(Generic[T]):
    """The result `value` for a beginning of a conversation.

    Results of different `variant` (a model, a style) are not the same. `size` is the result's in bytes.
    """

    variant: Hashable
    messages: tuple[Message, ...]
    value: T
    size: int = 0


class PrefixCache(Generic[T]):
    """The latest result of each conversation, the least recently used conversations dropped first.

    A conversation is recognized by its first message, which has to be the same object each time. Comparing the others
    is quick only if they are the same objects, too.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: dict[int, Prefix[T]] = {}

    def find(self, variant: Hashable, messages: tuple[Message, ...]) -> Prefix[T] | None:
        """Return the result for a beginning of `messages`, if there is one."""
        found = self._known.get(id(messages[0])) if messages else None
        if found is None or found.variant != variant:
            return None
        return found if messages[: len(found.messages)] == found.messages else None

    def put(self, prefix: Prefix[T]) -> None:
        """Keep a result, for at least one message, in place of the conversation's earlier one."""
        key, size = id(prefix.messages[0]), _size_of(prefix)
        self._drop(key)
        if size > self._max_bytes:
            return
        self._known[key] = prefix
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._known)))

    def _drop(self, key: int) -> None:
        dropped = self._known.pop(key, None)
        if dropped is not None:
            self._bytes -= _size_of(dropped)


def _size_of(prefix: Prefix[T]) -> int:
    return prefix.size + _BYTES_A_MESSAGE * len(prefix.messages)
