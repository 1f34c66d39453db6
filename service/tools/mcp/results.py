"""Convert tools, results and errors of the MCP SDK to compact values for the gateway.

Needs only the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from service.tools.terminal_text import is_binary, to_plain_text

#: Results are truncated in the child process, before they reach the gateway.
MAX_RESULT_CHARS = 200_000
MAX_DESCRIPTION_CHARS = 8_000

#: Remedy for a missing SDK.
INSTALL_MCP = "Run `pip install '.[mcp]'` in the gateway's clone."

_MIN_SECRET_CHARS = 6


def to_tool(tool: Any) -> dict[str, Any]:
    """Return the fields of an SDK tool that the gateway uses."""
    annotations = tool.annotations
    return {
        "name": tool.name,
        "description": (tool.description or tool.title or "")[:MAX_DESCRIPTION_CHARS],
        "parameters": tool.input_schema,
        "read_only": bool(annotations and annotations.read_only_hint),
    }


def to_text(result: Any) -> str:
    """Return a call's result as truncated plain text: its parts separated by blank lines, other media by name.

    Structured content follows as JSON unless the text repeats it. Failures are never empty.
    """
    pieces = [_part_text(part) for part in result.content]
    if result.structured_content is not None and not _is_repeated(result.structured_content, result.content):
        pieces.append(json.dumps(result.structured_content, ensure_ascii=False))
    text = "\n\n".join(pieces)
    if result.is_error and not text.strip():
        return "(the tool failed without a message)"
    if len(text) > MAX_RESULT_CHARS:
        text = f"{text[:MAX_RESULT_CHARS]}\n[{len(text) - MAX_RESULT_CHARS} more characters omitted]"
    return text


def _is_repeated(structured: Any, content: list[Any]) -> bool:
    """Return whether the parts repeat `structured`; servers wrap values other than objects as `result`."""
    texts = [part.text for part in content if part.type == "text"]
    values = [_parse_json(text) for text in texts]
    contents = [*texts, *values, texts, values]
    if structured in contents or (list(structured) == ["result"] and structured["result"] in contents):
        return True
    return any(data in json.dumps(structured) for data in map(_data_of, content) if data)  # an image


def _data_of(part: Any) -> str:
    return str(getattr(part, "data", "") or getattr(getattr(part, "resource", None), "blob", ""))


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _part_text(part: Any) -> str:
    if part.type == "text":
        return _plain(part.text)
    if part.type == "resource_link":
        return f"[resource {part.name}: {part.uri}]"
    if part.type == "resource":
        resource = part.resource
        kind = resource.mime_type or "unknown type"
        return _plain(resource.text) if hasattr(resource, "text") else f"[resource {resource.uri}, {kind}, not shown]"
    size = len(part.data) * 3 // 4 - part.data[-2:].count("=")
    return f"[{part.type}, {part.mime_type}, {size} bytes, not shown]"


def _plain(text: str) -> str:
    return f"[{len(text)} characters of binary data, not shown]" if is_binary(text) else to_plain_text(text)


def describe(error: BaseException) -> str:
    """Return the message of an error, of the first one in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return to_plain_text(str(error)).strip() or type(error).__name__


def redactor(settings: dict[str, Any]) -> Callable[[str], str]:
    """Return a function that redacts the secrets in `settings`: header and environment values, the URL's query."""
    values = [
        *settings.get("env", {}).values(),
        *settings.get("headers", {}).values(),
        urlsplit(settings.get("url") or "").query,
    ]
    values += [part for value in values for part in value.split()]  # the token of `Bearer token`
    secrets = sorted({value for value in values if len(value) >= _MIN_SECRET_CHARS}, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    return redact
