"""Cache summaries by the messages they replace, for clients that resend the whole conversation.

Only the texts are cached, in memory; a hit requires exactly the same messages.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from service.agent.conversation import ConversationDigest
from service.core.messages import Message

_MAX_SUMMARIES = 256


class SummaryCache:
    """LRU cache of summaries (a few KiB each) by the digest of the messages they replace."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def find(self, messages: Sequence[Message], cuts: Container[int]) -> tuple[int, str] | None:
        """Return the longest cached prefix of `messages` that ends at one of `cuts`: its length and its summary."""
        found: tuple[int, str] | None = None
        digest, key = ConversationDigest(), ""
        for count, message in enumerate(messages, 1):
            digest.add(message)
            if count in cuts and str(digest) in self._texts:
                key = str(digest)
                found = count, self._texts[key]
        if found is not None:
            self._texts[key] = self._texts.pop(key)  # the most recently used is last
        return found

    def add(self, messages: Sequence[Message], text: str) -> None:
        """Cache `text`, the summary of `messages`."""
        self._texts[str(ConversationDigest(messages))] = text
        if len(self._texts) > _MAX_SUMMARIES:
            del self._texts[next(iter(self._texts))]
