"""The blocks of an answer in Anthropic's dialect, in their order: where a model thought, they go back as they came.

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
    """The blocks of one answer."""

    def __init__(self) -> None:
        self._blocks: dict[Any, dict[str, Any]] = {}
        self._pieces: dict[Any, dict[str, list[str]]] = {}
        self._bytes = 0

    def begin(self, index: Any, block: dict[str, Any]) -> None:
        """A block begins; of kinds that are new nothing is kept.

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
        """A block goes on."""
        name = _DELTAS.get(delta["type"])
        if name is not None and index in self._pieces and delta[name]:
            self._pieces[index].setdefault(name, []).append(str(delta[name]))
            if name != "text":  # which is bounded with the answer
                self._count(delta[name])

    def to_data(self, calls: Sequence[ToolCall]) -> ProviderData | None:
        """What goes back with `calls`, all that the answer makes, in their order; `None` if the model did not think.

        In the blocks a `tool_use` stands for the next call; each call has the number of its own.
        """
        if not any(block["type"] in THINKING for block in self._blocks.values()):
            return None
        blocks = [_whole(block, self._pieces.get(index, {})) for index, block in self._blocks.items()]
        return ProviderData({"content": blocks}, {call.id: {_PLACE: place} for place, call in enumerate(calls)})

    def _count(self, told: Any) -> None:
        self._bytes += len(orjson.dumps(told))
        check_reasoning(len(self._blocks), self._bytes)


def in_order(data: ProviderData, calls: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks of `data`, as `Content.to_data` gave it, those of `calls`, by their ids, each in its place.

    Nothing where a call is missing: thinking whose call was dropped is refused.
    """
    blocks: Iterable[dict[str, Any]] = data.message.get("content", ())
    places = sum(block["type"] == "tool_use" for block in blocks)
    by_place = {told.get(_PLACE): calls[call_id] for call_id, told in data.calls.items() if call_id in calls}
    if by_place.keys() != set(range(places)) or len(calls) != places:
        return []
    in_turn = (by_place[place] for place in range(places))
    filled = (next(in_turn) if block["type"] == "tool_use" else block for block in blocks)
    return [block for block in filled if block["type"] != "text" or block["text"].strip()]


def _whole(block: dict[str, Any], pieces: dict[str, list[str]]) -> dict[str, Any]:
    return block | {name: f"{block.get(name) or ''}{''.join(told)}" for name, told in pieces.items()}
