"""Tools of a chat-completion request, which programs send with every request."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from service.api.http.chat_request import _KEPT_TOOLS_BYTES, _to_functions
from service.core.errors import GatewayError


def tool(name: str, description: str = "", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def test_same_tools_are_same_functions() -> None:
    tools = [tool("a", x={"type": "string"}), tool("b")]
    functions = _to_functions(tools)
    assert [(one.name, one.parameters, one.from_caller) for one in functions] == [
        (one["function"]["name"], one["function"]["parameters"], True) for one in tools
    ]
    assert _to_functions(copy.deepcopy(tools)) is functions
    assert _to_functions(tools[::-1]) != functions
    tools[1]["function"]["strict"] = True
    assert [one.strict for one in _to_functions(tools)] == [None, True]


def test_large_tools_are_not_kept() -> None:
    tools = [tool("a", "x" * _KEPT_TOOLS_BYTES)]
    assert _to_functions(tools) == _to_functions(tools)
    assert _to_functions(tools) is not _to_functions(tools)


def test_wrong_tools_are_refused_each_time() -> None:
    nested: Any = {}
    for _ in range(300):
        nested = {"a": nested}
    for tools, param in (([tool("a"), tool("a")], "tools[1].function.name"), ([tool("a", b=nested)], "tools[0]")):
        for _ in range(2):
            with pytest.raises(GatewayError) as refused:
                _to_functions(tools)
            assert str(refused.value.param).startswith(param)
