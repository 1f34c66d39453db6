"""The turns of a conversation in Anthropic's Messages API.

Turns alternate and begin with the user: adjacent messages of one role become one turn. Blocks of white space only are
left out, because the API refuses them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson

from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import NO_USER_MESSAGE, Image, Message, Part, Role
from service.models import json_chunks
from service.models.anthropic.content import in_order
from service.models.prefix_cache import Prefix, PrefixCache
from service.models.provider import ModelRequest
from service.models.tool_calls import CallIds, wire_arguments, wire_name

#: Bytes of encoded turns of one provider.
MAX_HISTORY_BYTES = 32 * 1024 * 1024

#: The last turns of a request are not encoded: what follows may belong to the last one, and two are marked for caching.
_OPEN_TURNS = 3

_MAX_ID_CHARS = 64
_PICTURE = re.compile(r"data:(image/(?:jpeg|png|gif|webp));base64,(.+)", re.DOTALL)
_NO_ID_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")
_BEFORE_THE_ASSISTANT = {"type": "text", "text": "(The beginning of this conversation is not shown.)"}


@record
class Turns:
    """The turns of a request: `encoded` are the first ones, `open` the others.

    `called` are the names of all tools that the conversation shows calls of.
    """

    encoded: json_chunks.Chunks
    open: list[dict[str, Any]]
    called: tuple[str, ...]


@record
class _Closed:
    """The first turns of a conversation, which end with one of `role`, and what the messages after them depend on."""

    ids: CallIds
    chunks: json_chunks.Chunks = ()
    role: str = ""
    called: tuple[str, ...] = ()


class TurnHistories:
    """Converts the messages of requests to turns; those of continued conversations are encoded once."""

    def __init__(self) -> None:
        self._closed: PrefixCache[_Closed] = PrefixCache(MAX_HISTORY_BYTES)

    def turns_of(self, request: ModelRequest) -> Turns:
        """Return the turns of `request`; raises `GatewayError` for an image that the API does not support."""
        messages, start, closed = request.messages, 0, _nothing_closed()
        if request.continued and (known := self._closed.find(request.model, messages)):
            start, closed = len(known.messages), known.value
        turns = _to_turns(messages[start:], closed)
        if start and (len(turns) < _OPEN_TURNS or turns[0][1]["role"] == closed.role):  # it goes on in another way
            start, closed = 0, _nothing_closed()
            turns = _to_turns(messages, closed)
        end = start + (turns[-_OPEN_TURNS][0] if len(turns) > _OPEN_TURNS else 0)
        if request.continued and end > start:
            closed = _close(closed, messages[start:end], [turn for _, turn in turns[:-_OPEN_TURNS]])
            self._closed.put(Prefix(request.model, messages[:end], closed, sum(map(len, closed.chunks))))
            start, turns = end, turns[-_OPEN_TURNS:]
        left = [turn for _, turn in turns] or [_turn("user", [{"type": "text", "text": NO_USER_MESSAGE}])]
        return Turns(closed.chunks, _without_trailing_space(left), _add_called(closed.called, messages[start:]))


def to_json(value: object) -> bytes:
    """Encode a part of a request."""
    return orjson.dumps(value, default=_to_plain)


def _nothing_closed() -> _Closed:
    return _Closed(CallIds(_to_call_id))


def _close(closed: _Closed, messages: Sequence[Message], turns: list[dict[str, Any]]) -> _Closed:
    """Return `closed` with the `turns` of the `messages` after it."""
    ids = closed.ids.copy()
    for message in messages:
        list(_to_blocks(message, ids))  # assigns the ids of the calls
    chunks = json_chunks.extend(closed.chunks, to_json(turns)[1:-1])
    return _Closed(ids, chunks, turns[-1]["role"], _add_called(closed.called, messages))


def _add_called(called: tuple[str, ...], messages: Sequence[Message]) -> tuple[str, ...]:
    names = (wire_name(call) for message in messages for call in message.tool_calls)
    return tuple(dict.fromkeys((*called, *names)))


def _to_turns(messages: Sequence[Message], closed: _Closed) -> list[tuple[int, dict[str, Any]]]:
    """Return the turns of `messages`, which follow the turns in `closed`, each with the index of its first message."""
    ids = closed.ids.copy()
    said = ((index, _role_of(message), list(_to_blocks(message, ids))) for index, message in enumerate(messages))
    turns: list[tuple[int, dict[str, Any]]] = []
    for role, group in groupby((one for one in said if one[2]), key=lambda one: one[1]):
        (first, _, blocks), *others = group
        if not closed.role and not turns and role == "assistant":
            turns.append((first, _turn("user", [_BEFORE_THE_ASSISTANT])))
        turns.append((first, _turn(role, [*blocks, *(block for _, _, more in others for block in more)])))
    return turns


def _turn(role: str, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": role, "content": blocks}


def _role_of(message: Message) -> str:
    return "assistant" if message.role is Role.ASSISTANT else "user"


def _without_trailing_space(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Strip the end of a last turn of the assistant: the API refuses white space there."""
    if turns[-1]["role"] == "assistant" and (last := turns[-1]["content"][-1])["type"] == "text":
        turns[-1]["content"][-1] = {**last, "text": last["text"].rstrip()}
    return turns


def _to_blocks(message: Message, ids: CallIds) -> Iterator[dict[str, Any]]:
    parts = [_to_block(part) for part in message.parts if isinstance(part, Image) or part.text.strip()]
    if message.role is Role.TOOL:
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": ids.of_result(message.tool_call_id or "")}
        yield result | {"content": parts} if parts else result
        return
    calls = [
        {"type": "tool_use", "id": call_id, "name": wire_name(call), "input": wire_arguments(call)}
        for call_id, call in zip(ids.of_calls(message.tool_calls), message.tool_calls, strict=True)
    ]
    by_id = {call.id: block for call, block in zip(message.tool_calls, calls, strict=True)}
    thought = in_order(message.provider_data, by_id) if message.provider_data is not None else []
    yield from thought or [*parts, *calls]


def _to_block(part: Part) -> dict[str, Any]:
    if not isinstance(part, Image):
        return {"type": "text", "text": part.text}
    picture = _PICTURE.fullmatch(part.url)
    if picture is None:
        message = "The model's provider accepts images as base64 data URIs of JPEG, PNG, GIF or WebP only."
        raise GatewayError("provider_rejected_request", message, param="messages")
    return {"type": "image", "source": {"type": "base64", "media_type": picture[1], "data": picture[2]}}


def _to_call_id(call_id: str) -> str:
    if len(call_id) > _MAX_ID_CHARS:
        return f"call_{hashlib.sha256(call_id.encode(errors='surrogatepass')).hexdigest()[:32]}"
    return _NO_ID_CHARACTER.sub("_", call_id) or "_"


def _to_plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")
