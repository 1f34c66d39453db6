"""Encoded beginnings of conversations, so that a further request encodes only its new messages."""

from __future__ import annotations

from service.core.dataclass import record
from service.core.messages import Message
from service.models.openai.hosts import RequestStyle
from service.models.tool_calls import CallIds

#: Bytes of one provider.
MAX_BYTES = 32 * 1024 * 1024

_BYTES_A_MESSAGE = 100


@record
class EncodedMessages:
    """`messages` of a request to `model` in `style` as the elements of a JSON array, and the ids of their calls."""

    model: str
    style: RequestStyle
    messages: tuple[Message, ...]
    ids: CallIds
    body: bytes

    @property
    def size(self) -> int:
        """Estimate of its bytes."""
        return len(self.body) + _BYTES_A_MESSAGE * len(self.messages)


class EncodedHistories:
    """The latest request of each conversation, the least recently used conversations dropped first.

    A conversation is recognized by its first message, which has to be the same object each time. Comparing the others
    is quick only if they are the same objects, too.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._encoded: dict[int, EncodedMessages] = {}

    def find(self, model: str, style: RequestStyle, messages: tuple[Message, ...]) -> EncodedMessages | None:
        """Return the encoded beginning of `messages`, if there is one."""
        found = self._encoded.get(id(messages[0])) if messages else None
        if found is None or found.model != model or found.style != style:
            return None
        return found if messages[: len(found.messages)] == found.messages else None

    def put(self, encoded: EncodedMessages) -> None:
        """Keep the encoded messages of a request in place of those of the conversation's earlier one."""
        key = id(encoded.messages[0])
        self._drop(key)
        if encoded.size > self._max_bytes:
            return
        self._encoded[key] = encoded
        self._bytes += encoded.size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._encoded)))

    def _drop(self, key: int) -> None:
        dropped = self._encoded.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped.size
