"""Translate the items of a response's input to the messages of a chat completion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.agent.events import PARAGRAPH
from service.api.http.openai_responses.tools import flat_name

#: A message, and the place of its first item.
PlacedMessage = tuple[str, dict[str, Any]]

#: The end of the place of a message with pictures and files of outputs, whose own places are not known.
SHOWN = ".output"

_NEEDLESS = ("reasoning", "mcp_call")  # the gateway has them
_DETAILS = {"original": "high"}  # the highest that every provider accepts
_SHOWN_BELOW = "(It is in the user's message below.)"


def to_messages(given: str | Sequence[Mapping[str, Any]]) -> Iterator[PlacedMessage]:
    """Yield the messages that items amount to, each with the place of its first item.

    Function calls join the assistant message before them. Pictures and files of their outputs follow the outputs, since
    most providers take only text there.
    """
    if isinstance(given, str):
        yield "input", {"role": "user", "content": given}
        return
    open_: PlacedMessage | None = None  # an answer or what outputs show: items may join it
    for place, item in _without_own_steps(given):
        kind = item.get("type") or "message"
        joins = "assistant" if kind == "function_call" else "user" if kind == "function_call_output" else None
        if open_ is not None and open_[1]["role"] != joins:
            yield open_
            open_ = None
        if kind == "function_call":
            open_ = open_ or (place, {"role": "assistant", "content": None})
            open_[1].setdefault("tool_calls", []).append(_to_call(item))
        elif kind == "function_call_output":
            yield place, _to_output(item)
            open_ = _shown_with(open_, place, item["output"])
        elif item["role"] == "assistant":
            open_ = place, _to_message(item)
        else:
            yield place, _to_message(item)
    if open_ is not None:
        yield open_


def _without_own_steps(items: Sequence[Mapping[str, Any]]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Return the items with their places, without those that the gateway has. An answer that these divide is one."""
    kept: list[tuple[str, Mapping[str, Any]]] = []
    divides = False
    for index, item in enumerate(items):
        if item.get("type") in _NEEDLESS:
            divides = True
            continue
        place, last = kept[-1] if kept else ("", {})
        if divides and last.get("role") == item.get("role") == "assistant":
            between = {"type": "output_text", "text": PARAGRAPH}
            kept[-1] = place, {**last, "content": [*_parts_of(last), between, *_parts_of(item)]}
        else:
            kept.append((f"input[{index}]", item))
        divides = False
    return kept


def _parts_of(item: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    content = item["content"]
    return [{"type": "output_text", "text": content}] if isinstance(content, str) else content


def _to_call(item: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": flat_name(item.get("namespace"), item["name"]), "arguments": item.get("arguments")}
    return {"id": item["call_id"], "type": "function", "function": function}


def _to_output(item: Mapping[str, Any]) -> dict[str, Any]:
    output = item["output"]
    if not isinstance(output, str):
        output = [part if "text" in part else {"type": "input_text", "text": _SHOWN_BELOW} for part in output]
    return {"role": "tool", "tool_call_id": item["call_id"], "content": _to_content(output)}


def _shown_with(shown: PlacedMessage | None, place: str, output: str | list[dict[str, Any]]) -> PlacedMessage | None:
    """Return the message that shows the pictures and files of outputs, with those of another `output`."""
    parts = [] if isinstance(output, str) else [_to_part(part) for part in output if "text" not in part]
    if not parts:
        return shown
    shown = shown or (f"{place}{SHOWN}", {"role": "user", "content": []})
    shown[1]["content"] += parts
    return shown


def _to_message(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": item["role"], "content": _to_content(item["content"])}


def _to_content(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_to_part(part) for part in content]


def _to_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "refusal":
        return part
    if part["type"] == "input_file":
        return {"type": "file", "file": {"file_data": part["file_data"], "filename": part.get("filename")}}
    if part["type"] != "input_image":
        return {"type": "text", "text": part["text"]}
    detail = part.get("detail") or "auto"
    return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": _DETAILS.get(detail, detail)}}
