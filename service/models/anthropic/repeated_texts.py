"""Texts that come twice: in the start of a block, or of the message, and again in the deltas."""

from __future__ import annotations

from typing import Any

from service.core.errors import GatewayError

#: Fewer characters repeat the beginning of a text by chance.
_LEAST_CHARS = 4
#: So many are not repeated by chance at all.
_MANY_CHARS = 16


class RepeatedTexts:
    """The texts that the blocks of one answer start with; deltas that repeat one are held back until they differ."""

    def __init__(self) -> None:
        self._given: dict[Any, str] = {}
        self._repeated: dict[Any, str] = {}

    def begin(self, index: Any, text: str) -> str:
        """Start a block, or a block that the start of the message has already, and return the text that is new."""
        if index in self._given:
            return "" if self._given[index].startswith(text) else self.extend(index, text)
        if text:
            self._given[index] = text
        return text

    def extend(self, index: Any, text: str) -> str:
        """Continue a block and return the text that is new."""
        given = self._given.get(index)
        if given is None:
            return text
        repeated = self._repeated.pop(index, "") + text
        if given.startswith(repeated):
            self._repeated[index] = repeated
            return ""
        del self._given[index]
        return repeated.removeprefix(given) if _is_no_chance(given) else repeated

    def end(self, index: Any) -> str:
        """End a block and return the text that was held back and is no repetition.

        Raises `GatewayError` (`provider_error`) for a repetition that is cut.
        """
        given, repeated = self._given.pop(index, ""), self._repeated.pop(index, "")
        if repeated == given:
            return ""
        if len(repeated.strip()) >= _LEAST_CHARS:
            raise GatewayError("provider_error", "The model provider sent two versions of its answer that differ.")
        return repeated

    def end_all(self) -> str:
        """End every block, at the end of the answer."""
        return "".join(self.end(index) for index in list(self._repeated))


def _is_no_chance(given: str) -> bool:
    """True if a text that follows itself is no text: a word without a space between, or a long one."""
    if len(given) >= _MANY_CHARS:
        return True
    return len(given.strip()) >= _LEAST_CHARS and given[0].isalnum() and given[-1].isalnum()
