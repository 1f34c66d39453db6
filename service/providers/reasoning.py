"""What models of the OpenAI dialect tell of their thoughts beside an answer, put together from its pieces.

It is told to nobody, but some hosts want it back with the calls that came of it, under the name they gave it:
`reasoning_content` (DeepSeek, Moonshot, vLLM), `reasoning` (Groq, vLLM), `reasoning_details` (OpenRouter, whose
`reasoning` says the same again).
"""

from __future__ import annotations

from typing import Any

from service.errors import GatewayError

_TEXTS = ("reasoning_content", "reasoning")
_DETAILS = "reasoning_details"
#: The fields of a message that hold reasoning.
REASONING = frozenset((*_TEXTS, _DETAILS))
_PIECES = ("text", "summary")
_MAX_CHARS = 4 * 1024 * 1024


class Reasoning:
    """The thoughts of one answer."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._details: list[dict[str, Any]] = []
        self._pieces: list[dict[str, list[str]]] = []  # of each detail's texts
        self._chars = 0

    def read(self, delta: dict[str, Any]) -> None:
        """Take in what a delta, or a whole message, tells; what is of no known shape is passed over.

        Raises `GatewayError` (`provider_error`) for more than 4 MiB.
        """
        if REASONING.isdisjoint(delta):
            return
        for name in _TEXTS:
            if isinstance(text := delta.get(name), str):
                self._texts.setdefault(name, []).append(text)
                self._count(text)
        details = delta.get(_DETAILS)
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, dict):
                self._add(detail)

    def to_message(self) -> dict[str, Any]:
        """The fields that go back with the message."""
        fields: dict[str, Any] = {name: "".join(pieces) for name, pieces in self._texts.items()}
        if self._details:
            fields.pop("reasoning", None)
            whole = zip(self._details, self._pieces, strict=True)
            texts = ({name: "".join(told) for name, told in pieces.items()} for _, pieces in whole)
            fields[_DETAILS] = [detail | told for detail, told in zip(self._details, texts, strict=True)]
        return fields

    def _add(self, detail: dict[str, Any]) -> None:
        """A new detail, or the next piece of the last one: its texts are longer, what else it tells is newer."""
        last = self._details[-1] if self._details else {}
        texts = {name: detail[name] for name in _PIECES if isinstance(detail.get(name), str)}
        continues = all(detail.get(name) == last.get(name) for name in ("type", "index"))
        if not last or not continues or "data" in detail:
            self._details.append(dict(detail))
            self._pieces.append({})
        else:
            last.update({name: value for name, value in detail.items() if value is not None})
        for name, text in texts.items():
            self._pieces[-1].setdefault(name, []).append(text)
        self._count(*(value for value in detail.values() if isinstance(value, str)))

    def _count(self, *texts: str) -> None:
        self._chars += sum(map(len, texts))
        if self._chars > _MAX_CHARS:
            raise GatewayError("provider_error", "The model provider sent reasoning of more than 4 MiB.")
