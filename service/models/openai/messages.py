"""Text of a stream of whole messages instead of deltas: pieces, or the whole text so far in each (DashScope)."""

from __future__ import annotations

from service.core.errors import GatewayError

#: A piece begins with a whole text of fewer characters by chance: `1`, `10`.
_LEAST_CHARS = 4


class Messages:
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
        if content.startswith(self._text):
            return self._append(content.removeprefix(self._text))
        if not agree(self._text, content):
            raise different_answers()
        return ""

    def _append(self, text: str) -> str:
        if self._number > 1 and text == self._text and not self._grow:
            return ""  # all of it, once more at the end
        self._text += text
        self._number += bool(text)
        return text


def agree(streamed: str, whole: str) -> bool:
    """True if one of two versions of an answer begins with the other or contains it, apart from white space."""
    said, again = "".join(streamed.split()), "".join(whole.split())
    return again.startswith(said) or again in said


def different_answers() -> GatewayError:
    """Create the error for contradicting versions of an answer."""
    return GatewayError("provider_error", "The model provider sent two different answers in one.")
