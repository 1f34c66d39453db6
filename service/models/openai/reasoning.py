"""Assemble the reasoning that models of the OpenAI dialect send beside an answer.

It is not shown, but some hosts require it with the calls that it led to, under the field name they used:
`reasoning_content` (DeepSeek, Moonshot, vLLM), `reasoning` (Groq, vLLM), `reasoning_details` (OpenRouter, whose
`reasoning` repeats it).
"""

from __future__ import annotations

from typing import Any

import orjson

from service.core.errors import GatewayError

_TEXTS = ("reasoning_content", "reasoning")
_DETAILS = "reasoning_details"
#: The fields of a message that hold reasoning.
REASONING = frozenset((*_TEXTS, _DETAILS))
_PIECES = ("text", "summary")
_MAX_BYTES = 4 * 1024 * 1024
_MAX_ITEMS = 4096


def check_reasoning(items: int, size_bytes: int) -> None:
    """Raise `GatewayError` (`provider_error`) if the reasoning of an answer exceeds the limits."""
    if items > _MAX_ITEMS:
        raise GatewayError("provider_error", f"The model provider sent reasoning of more than {_MAX_ITEMS} parts.")
    if size_bytes > _MAX_BYTES:
        raise GatewayError("provider_error", "The model provider sent reasoning of more than 4 MiB.")


class Reasoning:
    """Reasoning of one answer."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._details: list[_Detail] = []
        self._bytes = 0
        self._shown: str | None = None  # the first field with text; hosts that use several repeat it
        self._shown_chars = 0

    def read(self, delta: dict[str, Any]) -> str:
        """Process a delta or a whole message and return the text of its reasoning; unknown shapes are ignored.

        Raises `GatewayError` (`provider_error`) for more than 4 MiB of JSON or 4,096 details.
        """
        if REASONING.isdisjoint(delta):
            return ""
        shown = ""
        for name in _TEXTS:
            if isinstance(text := delta.get(name), str):
                self._texts.setdefault(name, []).append(text)
                self._count(text)
                shown += self._show(name, text)
        details = delta.get(_DETAILS)
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, dict):
                self._add(detail)
                shown += self._show(_DETAILS, _text_of(detail))
        return shown

    def read_message(self, message: dict[str, Any]) -> str:
        """Process a message of a stream without deltas, which may repeat the reasoning before it; see `read`."""
        repeated = set()
        for name in _TEXTS:
            text, before = message.get(name), self._texts.get(name)
            if before and isinstance(text, str) and text.startswith("".join(before)):
                before.clear()
                repeated.add(name)
        if self._details and _begins_with(message.get(_DETAILS), self._details[0].whole()):
            self._details.clear()
            repeated.add(_DETAILS)
        known = self._shown_chars if self._shown in repeated else 0
        self._shown_chars -= known
        return self.read(message)[known:]

    def _show(self, name: str, text: str) -> str:
        """Return `text` if it is part of what is shown."""
        if not text or self._shown not in (None, name):
            return ""
        self._shown = name
        self._shown_chars += len(text)
        return text

    def to_message(self) -> dict[str, Any]:
        """Return the fields that go back with the message."""
        fields: dict[str, Any] = {name: "".join(pieces) for name, pieces in self._texts.items()}
        if self._details:
            fields.pop("reasoning", None)
            fields[_DETAILS] = [detail.whole() for detail in self._details]
        return fields

    def _add(self, piece: dict[str, Any]) -> None:
        if not self._details or not self._details[-1].is_continued_by(piece):
            self._details.append(_Detail())
        self._count(self._details[-1].add(piece))

    def _count(self, kept: Any) -> None:
        self._bytes += len(orjson.dumps(kept))
        check_reasoning(len(self._details), self._bytes)


def _text_of(detail: dict[str, Any]) -> str:
    return next((detail[name] for name in _PIECES if isinstance(detail.get(name), str)), "")


def _begins_with(details: Any, first: dict[str, Any]) -> bool:
    """True if `details` begin with the detail `first`, or with more of it."""
    again = details[0] if isinstance(details, list) and details else None
    if not isinstance(again, dict):
        return False
    return all(str(again.get(name) or "").startswith(str(first.get(name) or "")) for name in (*_PIECES, "data"))


class _Detail:
    """One of the `reasoning_details`, whose texts come in pieces."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._pieces: dict[str, list[str]] = {}

    def is_continued_by(self, piece: dict[str, Any]) -> bool:
        """True if `piece` continues this detail."""
        return "data" not in piece and all(piece.get(name) == self._fields.get(name) for name in ("type", "index"))

    def add(self, piece: dict[str, Any]) -> dict[str, Any]:
        """Take in a piece, which makes the texts longer and all else newer, and return what is kept of it."""
        texts = {name: piece[name] for name in _PIECES if isinstance(piece.get(name), str)}
        known = self._fields
        news = {name: value for name, value in piece.items() if name not in known or value not in (None, known[name])}
        for name, text in texts.items():
            self._pieces.setdefault(name, []).append(text)
        known |= news
        return news | texts

    def whole(self) -> dict[str, Any]:
        """All of it, its texts put together."""
        return self._fields | {name: "".join(pieces) for name, pieces in self._pieces.items()}
