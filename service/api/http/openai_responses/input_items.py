"""The input of a response as items, and pages of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from service.api.http.openai_responses.tools import split_names
from service.core.errors import GatewayError
from service.core.messages import Image, Message, Part, Role
from service.storage.runs.records import RUN_ID_PREFIX


def to_input_items(
    run_id: str, messages: Sequence[Message], tools: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Translate messages to items, in order; `tools` are those that the run's response repeats."""
    name, names = run_id.removeprefix(RUN_ID_PREFIX), split_names(tools)
    found = (item for message in messages for item in _to_items(message, names))
    return [
        {"type": kind, "id": f"{prefix}_{name}_i{index}", **item} for index, (kind, prefix, item) in enumerate(found)
    ]


def to_item_list(items: list[dict[str, Any]], *, limit: int, order: str, after: str | None) -> dict[str, Any]:
    """Return a page of at most `limit` items behind the one with the id `after`; raises `GatewayError` without one."""
    items = items if order == "asc" else items[::-1]
    if after is not None:
        place = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise GatewayError("invalid_value", "`after` must be the id of an item of this input.", param="after")
        items = items[place + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return {"object": "list", "data": page, **ends, "has_more": len(items) > limit}


def _to_items(message: Message, names: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if message.role is Role.TOOL:
        output = {"call_id": message.tool_call_id, "output": message.text, "status": "completed"}
        yield "function_call_output", "fco", output
        return
    if message.parts or not message.tool_calls:
        content = [_to_part(part, message.role) for part in message.parts]
        yield "message", "msg", {"role": message.role, "content": content, "status": "completed"}
    for call in message.tool_calls:
        called = names.get(call.name, {"name": call.name})
        done = {"call_id": call.id, **called, "arguments": call.arguments, "status": "completed"}
        yield "function_call", "fc", done


def _to_part(part: Part, role: Role) -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": part.url, "detail": part.detail}
    if role is Role.ASSISTANT:
        return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": part.text}
