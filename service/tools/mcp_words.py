"""What an MCP server says, in the words the gateway gets: tools, results and errors as the SDK has them, made small.

Needs only the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

#: The result of a call is cut here, before it crosses to the gateway.
MAX_RESULT_CHARS = 200_000
MAX_DESCRIPTION_CHARS = 8_000

_MIN_SECRET_CHARS = 6


def to_tool(tool: Any) -> dict[str, Any]:
    """What the gateway needs to know of an SDK tool."""
    annotations = tool.annotations
    return {
        "name": tool.name,
        "description": (tool.description or tool.title or "")[:MAX_DESCRIPTION_CHARS],
        "parameters": tool.input_schema,
        "read_only": bool(annotations and annotations.read_only_hint),
    }


def to_text(result: Any) -> str:
    """The result of a call as text: text parts joined by a blank line, other parts named, all of it bounded."""
    text = "\n\n".join(_part_text(part) for part in result.content)
    if not text and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    if len(text) > MAX_RESULT_CHARS:
        text = f"{text[:MAX_RESULT_CHARS]}\n[{len(text) - MAX_RESULT_CHARS} more characters were cut]"
    return text


def _part_text(part: Any) -> str:
    if part.type == "text":
        return str(part.text)
    if part.type == "resource_link":
        return f"[resource {part.name}: {part.uri}]"
    if part.type == "resource":
        resource = part.resource
        kind = resource.mime_type or "unknown type"
        return str(resource.text) if hasattr(resource, "text") else f"[resource {resource.uri}, {kind}, not shown]"
    return f"[{part.type}, {part.mime_type}, {len(part.data) * 3 // 4} bytes, not shown]"


def describe(error: BaseException) -> str:
    """What went wrong, of a group the first thing that did."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def redactor(order: dict[str, Any]) -> Callable[[str], str]:
    """A function that hides the secrets of `order` in a text: values of headers and environment, the URL's query."""
    values = [
        *order.get("env", {}).values(),
        *order.get("headers", {}).values(),
        urlsplit(order.get("url") or "").query,
    ]
    values += [word for value in values for word in value.split()]  # the token of `Bearer token`
    secrets = sorted({value for value in values if len(value) >= _MIN_SECRET_CHARS}, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    return redact
