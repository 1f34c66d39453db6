"""The blocks of an answer in Anthropic's dialect, in their order: where a model thought, they go back as they came.

https://docs.claude.com/en/docs/build-with-claude/extended-thinking: thinking that led to calls of tools is returned
with them, whole, signed and in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from service.providers.reasoning import check_reasoning

_THINKING = ("thinking", "redacted_thinking")
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
        elif kind == "text" or kind in _THINKING:
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

    def to_blocks(self) -> list[dict[str, Any]]:
        """What goes back, a `tool_use` standing for the next call; nothing where the model did not think."""
        if not any(block["type"] in _THINKING for block in self._blocks.values()):
            return []
        return [_whole(block, self._pieces.get(index, {})) for index, block in self._blocks.items()]

    def _count(self, told: Any) -> None:
        self._bytes += len(orjson.dumps(told))
        check_reasoning(len(self._blocks), self._bytes)


def in_order(blocks: Iterable[dict[str, Any]], calls: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """`blocks`, as `Content.to_blocks` gave them, with the blocks of `calls` in their places."""
    left = iter(calls)
    for block in blocks:
        if block["type"] == "tool_use":
            yield from next(([call] for call in left), [])
        elif block["type"] != "text" or block["text"].strip():
            yield block
    yield from left


def _whole(block: dict[str, Any], pieces: dict[str, list[str]]) -> dict[str, Any]:
    return block | {name: f"{block.get(name) or ''}{''.join(told)}" for name, told in pieces.items()}
