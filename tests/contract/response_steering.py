"""Mend generated requests of the Responses API where the contract leaves open what the gateway requires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_MAX_TOOLS = 128
_MAX_PICTURES = _MAX_FILES = 8
_GO_ON = [{"role": "assistant", "content": "Go on."}, {"role": "user", "content": "Say this again, please."}]


def mend_response_request(body: dict[str, Any], picture: str, file: str, *, in_session: bool) -> None:
    """Give results their calls, tools unique names, choices existing tools, pictures that are some, and an input.

    The name of a conversation is shortened, or left out of a request that is `in_session` by other fields.
    """
    in_session = _mend_conversation(body, in_session=in_session)
    given = body.get("input")
    if given is None or (isinstance(given, str) and not given.strip()):
        body["input"] = "Say this again, please."
    if isinstance(given, list):
        body["input"] = _mend_items(given, in_session=in_session)
        _mend_pictures(body["input"], picture, file)
    _mend_tools(body)
    if body.get("background") is True and body.get("store") is False:
        body["store"] = True
    match body.get("text"):
        case {"format": {"schema": dict(), "strict": True} as wanted}:
            wanted["schema"] = {"description": "Any value."}  # generated ones are seldom schemas


def _mend_conversation(body: dict[str, Any], *, in_session: bool) -> bool:
    match body.get("conversation"):
        case str(name) | {"id": str(name)} if in_session or not name.strip():
            del body["conversation"]
        case str(name) | {"id": str(name)}:
            body["conversation"] = f"of-{len(name)}-characters"
            return True
    return in_session


def _mend_items(items: Iterable[Any], *, in_session: bool) -> list[Any]:
    called: set[str] = set()
    mended: list[Any] = []
    for item in items:
        match item:
            case {"type": "item_reference", "id": str()}:
                continue  # to nothing
            case {"id": str()} if item.get("type") is item.get("role") is item.get("content") is None:
                continue  # likewise
            case {"type": "function_call_output", "call_id": str(call_id)} if call_id not in called:
                mended.append({"type": "function_call", "call_id": call_id, "name": "look_up"})
                called.add(call_id)
            case {"type": "function_call", "call_id": str(call_id)}:
                called.add(call_id)
        mended.append(item)
    # In a session only what follows the last answer is new.
    return mended + _GO_ON if in_session or not any(map(_is_input, mended)) else mended


def _is_input(item: Any) -> bool:
    match item:
        case {"type": "function_call_output"}:
            return True
        case {"role": "user", "content": str(text)}:
            return bool(text.strip())
        case {"role": "user", "content": list(parts)}:
            return any(_is_shown(part) for part in parts)
    return False


def _is_shown(part: Any) -> bool:
    match part:
        case {"type": "input_image" | "input_file"}:
            return True
        case {"text": str(text)}:
            return bool(text.strip())
    return False


def _mend_pictures(items: Iterable[Any], picture: str, file: str) -> None:
    seen = files = 0
    for item in items:
        is_output = isinstance(item, dict) and item.get("type") == "function_call_output"
        parts = item.get("output" if is_output else "content") if isinstance(item, dict) else None
        for part in parts if isinstance(parts, list) else ():
            match part:
                case {"type": "input_image", "image_url": str(url)} if url.lower().startswith(("data:", "http")):
                    seen += 1
                    part["image_url"] = picture
                    if seen > _MAX_PICTURES:
                        part.clear()
                        part.update({"type": "input_text", "text": "and another picture"})
                case {"type": "input_file", "file_data": str(data)} if data:
                    files += 1
                    part["file_data"] = file
                    if files > _MAX_FILES:
                        part.clear()
                        part.update({"type": "input_text", "text": "and another file"})


def _mend_tools(body: dict[str, Any]) -> None:
    tools = [] if body.get("tools") is None else body["tools"]
    if not isinstance(tools, list):
        return
    _mend_names(tools)
    for tool in tools:
        if isinstance(tool, dict) and tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
            tool["tools"] = tool["tools"][:1] if len(tools) < _MAX_TOOLS else []
            _mend_names(tool["tools"])
    named = [tool for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str)]
    names = {tool["name"] for tool in named if tool.get("type") != "namespace"}
    missing = [name for name in _chosen(body.get("tool_choice")) if name not in names]
    if not names and (tools or body.get("tool_choice") == "required"):
        missing = missing or ["look_up"]
    if missing:
        added = [{"type": "function", "name": name} for name in dict.fromkeys(missing)]
        body["tools"] = [*tools[: max(0, _MAX_TOOLS - len(added))], *added]


def _mend_names(tools: Iterable[Any]) -> None:
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            if tool["name"] in names:
                tool["name"] = f"{tool['name'][:50]}-{index}"
            names.add(tool["name"])


def _chosen(choice: Any) -> list[str]:
    if not isinstance(choice, Mapping):
        return []
    tools = choice.get("tools")
    named = [choice, *(tools if isinstance(tools, list) else ())]
    for one in named:
        if isinstance(one, dict) and isinstance(one.get("namespace"), str):
            del one["namespace"]
    return [one["name"] for one in named if isinstance(one, Mapping) and isinstance(one.get("name"), str)]
