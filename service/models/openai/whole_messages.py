"""Text of a stream of whole messages instead of deltas: pieces, or the whole text so far in each (DashScope)."""

from __future__ import annotations

import re
from itertools import accumulate
from unicodedata import normalize

from service.core.errors import GatewayError
from service.models.inline_reasoning import ThoughtFilter

#: A piece begins with a whole text of fewer characters by chance: `1`, `10`.
_LEAST_CHARS = 4
_MAX_REPLACED_CHARS = 4
_REPLACED = re.compile("\ufffd+")


class WholeMessages:
    """Messages of one answer. What may be a piece or a repetition is held back until the next message decides."""

    def __init__(self) -> None:
        self._text = ""
        self._number = 0
        self._held = ""
        self._grow: bool | None = None  # each has the whole text so far

    def add(self, content: str) -> str:
        """Return the text that a message adds. Raises `GatewayError` (`provider_error`) for two different answers."""
        if not content:
            return ""
        held, self._held = self._held, ""
        if held:
            self._grow = content.startswith(held)
        elif self._grow is None and self._text:
            self._grow = self._is_repeated_by(content)
            if self._grow is None:
                self._held = content
                return ""
        if self._grow:
            return self._extend(content)
        return self._append(held) + self._append(content)

    def finish(self) -> str:
        """Return the text that was held back: a longer message has the whole text, an equal one is a piece."""
        held, self._held = self._held, ""
        return self._append(held if held == self._text else held.removeprefix(self._text))

    def _is_repeated_by(self, content: str) -> bool | None:
        """True if `content` contains the text so far, `None` if that may be chance."""
        text = self._text.rstrip()
        if len(text.lstrip()) >= _LEAST_CHARS:
            return content.startswith(text)
        return None if content.startswith(self._text) else False

    def _extend(self, content: str) -> str:
        return self._append(added_by(content, self._text))

    def _append(self, text: str) -> str:
        if self._number > 1 and text == self._text and not self._grow:
            return ""  # all of it, once more at the end
        self._text += text
        self._number += bool(text)
        return text


def added_by(whole: str, streamed: str) -> str:
    """Return the text that `whole`, another version of an answer, has beyond `streamed`.

    White space, thoughts, the form of Unicode and replaced characters may differ. Raises `GatewayError`
    (`provider_error`) for two different answers.
    """
    if whole.startswith(streamed):
        return whole.removeprefix(streamed)
    text, before = _answer_of(whole), _answer_of(streamed)
    said, again = "".join(before.split()), "".join(text.split())
    if again in said or _match(again, said) == len(said):
        return ""
    same = _match(said, again)
    if same is None:
        raise GatewayError("provider_error", "The model provider sent two different answers in one.")
    ends = accumulate(not character.isspace() for character in text)
    place = next((place for place, count in enumerate(ends, 1) if count == same), 0)
    rest = text[place:]
    return rest if rest.strip() else ""


def _answer_of(text: str) -> str:
    thoughts = ThoughtFilter(lambda _: False)
    answer = thoughts.filter(text) + thoughts.finish()
    return normalize("NFC", answer)


def _match(version: str, text: str) -> int | None:
    """Return the length of the beginning of `text` that agrees with `version`, in which each U+FFFD is replaced."""
    first, *others = _REPLACED.split(version)
    if not text.startswith(first):
        return None
    place = len(first)
    for part in others:
        found = text.find(part, place, place + _MAX_REPLACED_CHARS + len(part)) if part else min(place + 1, len(text))
        if found < 0:
            return None
        place = found + len(part)
    return place
