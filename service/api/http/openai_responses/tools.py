"""The caller's tools: functions, and namespaces of functions, which have flat names for models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from service.core.dataclass import record
from service.core.errors import GatewayError

_SEPARATOR = "__"
_NAME_CHARACTERS = 64  # of OpenAI's and Anthropic's functions
_DIGEST_BYTES = 4
_MOST_FUNCTIONS = 128


@record
class PlacedFunction:
    """A function as a chat completion has it, with a flat name, and its place in the request."""

    place: str
    function: Mapping[str, Any]


def flat_name(namespace: str | None, name: str) -> str:
    """Return the name for models of the function `name` of a namespace."""
    if not namespace:
        return name
    flat = f"{namespace}{_SEPARATOR}{name}"
    if len(flat) <= _NAME_CHARACTERS:
        return flat
    digest = hashlib.blake2b(flat.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{flat[: _NAME_CHARACTERS - 1 - len(digest)]}_{digest}"


def parse_tools(tools: Sequence[Mapping[str, Any]]) -> list[PlacedFunction]:
    """Return the functions of a request's `tools`.

    Raises `GatewayError` for a web search that is the only tool (`unsupported_parameter`), and for more functions than
    models take (`invalid_value`).
    """
    functions = list(_functions(tools))
    if len(functions) > _MOST_FUNCTIONS:
        text = f"`tools` has {len(functions)} functions with those in namespaces; {_MOST_FUNCTIONS} are allowed."
        raise GatewayError("invalid_value", text, param="tools")
    searches = [index for index, tool in enumerate(tools) if tool["type"].startswith("web_search")]
    if searches and not functions:
        text = "The gateway has no web search of its own. Give the agent a tool that searches, and omit this one."
        raise GatewayError("unsupported_parameter", text, param=f"tools[{searches[0]}]")
    return functions


def split_names(tools: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    """Return the members `name` and `namespace` of calls by flat names, for the functions in namespaces of `tools`."""
    return {
        flat_name(tool["name"], function["name"]): {"namespace": tool["name"], "name": function["name"]}
        for tool in tools
        if tool["type"] == "namespace"
        for function in tool["tools"]
    }


def to_tool_echo(tools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the tools of a request that its model can use, as a response repeats them."""
    return [_to_echo(tool) for tool in tools if tool["type"] in ("function", "namespace")]


def _to_echo(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool["type"] == "namespace":
        functions = list(map(_to_echo, tool["tools"]))
        head = {"type": "namespace", "name": tool["name"], "description": tool.get("description") or ""}
        return {**head, "tools": functions}
    return {"type": "function", **{name: tool.get(name) for name in ("name", "description", "parameters", "strict")}}


def _functions(tools: Sequence[Mapping[str, Any]]) -> Iterator[PlacedFunction]:
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if tool["type"] == "function":
            yield PlacedFunction(place, tool)
        elif tool["type"] == "namespace":
            yield from _namespaced(place, tool)


def _namespaced(place: str, namespace: Mapping[str, Any]) -> Iterator[PlacedFunction]:
    for index, function in enumerate(namespace["tools"]):
        given = {**function, "name": flat_name(namespace["name"], function["name"])}
        if index == 0 and namespace.get("description"):
            about = f"Functions that begin with {namespace['name']}{_SEPARATOR}: {namespace['description']}"
            given["description"] = f"{function.get('description') or ''}\n\n{about}".lstrip()
        yield PlacedFunction(f"{place}.tools[{index}]", given)
