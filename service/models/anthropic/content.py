"""Keep the blocks of an answer in Anthropic's dialect, because thinking goes back as it came.

https://docs.claude.com/en/docs/build-with-claude/extended-thinking: thinking that led to calls of tools is returned
with them, whole, signed and in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from service.core.messages import ProviderData, ToolCall
from service.models.openai.reasoning import check_reasoning

#: The kinds of blocks in which a model thinks; they are not marked for caching.
THINKING = ("thinking", "redacted_thinking")
_PLACE = "place"
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class Content:
    """Blocks of one answer."""

    def __init__(self) -> None:
        self._blocks: dict[Any, dict[str, Any]] = {}
        self._pieces: dict[Any, dict[str, list[str]]] = {}
        self._bytes = 0

    def begin(self, index: Any, block: dict[str, Any]) -> None:
        """Start a block; unknown kinds are ignored.

        Raises `GatewayError` (`provider_error`) for more than 4,096 blocks or 4 MiB of them, as `extend` does.
        """
        kind = block["type"]
        if kind == "tool_use":
            self._blocks[index] = {"type": kind}  # the call itself is kept as a call
        elif kind == "text" or kind in THINKING:
            self._blocks[index] = block
            self._pieces[index] = {}
            self._count(block)

    def extend(self, index: Any, delta: dict[str, Any]) -> None:
        """Continue a block."""
        name = _DELTAS.get(delta["type"])
        if name is not None and index in self._pieces and delta.get(name):
            self._pieces[index].setdefault(name, []).append(str(delta[name]))
            if name != "text":  # which is bounded with the answer
                self._count(delta[name])

    def to_data(self, calls: Sequence[ToolCall]) -> ProviderData | None:
        """Return the data that goes back with `calls`, all calls of the answer in order; `None` without thinking.

        A `tool_use` block is a placeholder for the next call; the data of each call has its place.
        """
        if not any(block["type"] in THINKING for block in self._blocks.values()):
            return None
        blocks = [_whole(block, self._pieces.get(index, {})) for index, block in self._blocks.items()]
        return ProviderData({"content": blocks}, {call.id: {_PLACE: place} for place, call in enumerate(calls)})

    def _count(self, value: Any) -> None:
        self._bytes += len(orjson.dumps(value))
        check_reasoning(len(self._blocks), self._bytes)


def in_order(data: ProviderData, calls: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks of `data`, the result of `Content.to_data`, with `calls` (by id) in their places.

    Empty if a call is missing: the API refuses thinking whose call was dropped.
    """
    blocks: Iterable[dict[str, Any]] = data.message.get("content", ())
    places = sum(block["type"] == "tool_use" for block in blocks)
    by_place = {place.get(_PLACE): calls[call_id] for call_id, place in data.calls.items() if call_id in calls}
    if by_place.keys() != set(range(places)) or len(calls) != places:
        return []
    in_turn = (by_place[place] for place in range(places))
    filled = (next(in_turn) if block["type"] == "tool_use" else block for block in blocks)
    return [block for block in filled if block["type"] != "text" or block["text"].strip()]


def _whole(block: dict[str, Any], pieces: dict[str, list[str]]) -> dict[str, Any]:
    texts = {name: "".join(one) for name, one in pieces.items()}
    return block | {
        name: text if text == block.get(name) else f"{block.get(name) or ''}{text}" for name, text in texts.items()
    }
