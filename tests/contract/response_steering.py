"""Mend generated requests of the Responses API where the contract leaves open what the gateway requires."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_MAX_TOOLS = 128
_MAX_NAME = 60
_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
_MAX_PICTURES = _MAX_FILES = 8
_GO_ON = [{"role": "assistant", "content": "Go on."}, {"role": "user", "content": "Say this again, please."}]


def mend_response_request(
    body: dict[str, Any], picture: str, file: str, stored: Sequence[str], *, in_session: bool
) -> None:
    """Give results their calls, tools unique names, choices existing tools, pictures that are some, and an input.

    References to items become ones to an item that is `stored`, or are left out if there is none.
    The name of a conversation is shortened, or left out of a request that is `in_session` by other fields.
    """
    in_session = _mend_conversation(body, in_session=in_session)
    given = body.get("input")
    if given is None or (isinstance(given, str) and not given.strip()):
        body["input"] = "Say this again, please."
    if isinstance(given, list):
        body["input"] = _mend_items(given, stored, in_session=in_session)
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
        case str(name):
            body["conversation"] = f"of-{len(name)}-characters"
            return True
        case {"id": str(name)}:
            body["conversation"] = {**body["conversation"], "id": f"of-{len(name)}-characters"}
            return True
    return in_session


def _mend_items(items: Iterable[Any], stored: Sequence[str], *, in_session: bool) -> list[Any]:
    called: set[str] = set()
    mended: list[Any] = []
    for item in items:
        if _is_reference(item):
            mended += [{**item, "id": stored[0]}] if stored else []
            continue
        match item:
            case {"type": "function_call_output", "call_id": str(call_id)} if call_id not in called:
                mended.append({"type": "function_call", "call_id": call_id, "name": "look_up"})
                called.add(call_id)
            case {"type": "function_call", "call_id": str(call_id)}:
                called.add(call_id)
        mended.append(item)
    # In a session only what follows the last answer is new.
    return mended + _GO_ON if in_session or not any(map(_is_input, mended)) else mended


def _is_reference(item: Any) -> bool:
    match item:
        case {"type": "item_reference", "id": str()}:
            return True
        case {"id": str()}:
            return item.get("type") is item.get("role") is item.get("content") is None
    return False


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
    choices = _choices(body.get("tool_choice"))
    spaces = [one["namespace"] for one in choices if isinstance(one.get("namespace"), str)]
    for space in spaces:
        _add_to_namespace(tools, space, [one["name"] for one in choices if one.get("namespace") == space])
    named = [tool for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str)]
    names = {tool["name"] for tool in named if tool.get("type") != "namespace"}
    missing = [one["name"] for one in choices if one["name"] not in names and one.get("namespace") is None]
    if not names and not spaces and (tools or body.get("tool_choice") == "required"):
        missing = missing or ["look_up"]
    if missing or spaces:
        added = [{"type": "function", "name": name} for name in dict.fromkeys(missing)]
        body["tools"] = [*tools[: max(0, _MAX_TOOLS - len(added))], *added]


def _mend_names(tools: Iterable[Any]) -> None:
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            if tool["name"] in names:
                tool["name"] = f"{tool['name'][:50]}-{index}"
            names.add(tool["name"])


def _choices(choice: Any) -> list[dict[str, Any]]:
    """Return the functions that a choice names, without namespaces whose names none can have."""
    if not isinstance(choice, Mapping):
        return []
    tools = choice.get("tools")
    named = [choice, *(tools if isinstance(tools, list) else ())]
    found = [one for one in named if isinstance(one, dict) and isinstance(one.get("name"), str)]
    for one in found:
        space = one.get("namespace")
        if isinstance(space, str) and not (_NAME.fullmatch(space) and len(space) + len(one["name"]) < _MAX_NAME):
            del one["namespace"]
    return found


def _add_to_namespace(tools: list[Any], space: str, names: Iterable[str]) -> None:
    """Let `tools` have a namespace with functions of these `names`, in place of one that has its name."""
    functions = [{"type": "function", "name": name} for name in dict.fromkeys(names)]
    tools[:] = [one for one in tools if not (isinstance(one, dict) and one.get("name") == space)][: _MAX_TOOLS // 2]
    tools.append({"type": "namespace", "name": space, "tools": functions})
