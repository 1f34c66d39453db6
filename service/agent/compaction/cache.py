"""Summaries that were made, by what they stand for: who resends all of a conversation need not wait for them anew.

Only the texts are kept, for as long as the process lives, and only for who sends the very same messages.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from service.agent.conversation import ConversationDigest
from service.core.messages import Message

_MAX_SUMMARIES = 256


class SummaryCache:
    """The summaries that were used last, each of a few KiB, by the digest of the messages they stand for."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def find(self, messages: Sequence[Message], cuts: Container[int]) -> tuple[int, str] | None:
        """How many of the first `messages`, as many of `cuts` as possible, there is a summary for, and its text."""
        found: tuple[int, str] | None = None
        digest, key = ConversationDigest(), ""
        for count, message in enumerate(messages, 1):
            digest.add(message)
            if count in cuts and str(digest) in self._texts:
                key = str(digest)
                found = count, self._texts[key]
        if found is not None:
            self._texts[key] = self._texts.pop(key)  # the latest stands last
        return found

    def add(self, messages: Sequence[Message], text: str) -> None:
        """Keep `text`, the summary of `messages`."""
        self._texts[str(ConversationDigest(messages))] = text
        if len(self._texts) > _MAX_SUMMARIES:
            del self._texts[next(iter(self._texts))]
