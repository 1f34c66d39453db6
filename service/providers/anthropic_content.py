"""The blocks of an answer in Anthropic's dialect, in their order: where a model thought, they go back as they came.

https://docs.claude.com/en/docs/build-with-claude/extended-thinking: thinking that led to calls of tools is returned
with them, whole, signed and in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from service.errors import GatewayError

_THINKING = ("thinking", "redacted_thinking")
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
_MAX_CHARS = 4 * 1024 * 1024


class Content:
    """The blocks of one answer."""

    def __init__(self) -> None:
        self._blocks: dict[Any, dict[str, Any]] = {}
        self._pieces: dict[Any, dict[str, list[str]]] = {}
        self._chars = 0

    def begin(self, index: Any, block: dict[str, Any]) -> None:
        """A block begins; of kinds that are new nothing is kept."""
        kind = block["type"]
        if kind == "tool_use":
            self._blocks[index] = {"type": kind}  # the call itself is kept as a call
        elif kind == "text" or kind in _THINKING:
            self._blocks[index] = block
            self._pieces[index] = {}
            self._count(block)

    def extend(self, index: Any, delta: dict[str, Any]) -> None:
        """A block goes on. Raises `GatewayError` (`provider_error`) when a model's thoughts have no end."""
        name = _DELTAS.get(delta["type"])
        if name is not None and index in self._pieces:
            self._pieces[index].setdefault(name, []).append(str(delta[name]))
            if name != "text":
                self._count(delta)

    def to_blocks(self) -> list[dict[str, Any]]:
        """What goes back, a `tool_use` standing for the next call; nothing where the model did not think."""
        if not any(block["type"] in _THINKING for block in self._blocks.values()):
            return []
        return [_whole(block, self._pieces.get(index, {})) for index, block in self._blocks.items()]

    def _count(self, told: dict[str, Any]) -> None:
        self._chars += sum(len(value) for value in told.values() if isinstance(value, str))
        if self._chars > _MAX_CHARS:
            raise GatewayError("provider_error", "The model provider sent reasoning of more than 4 MiB.")


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
