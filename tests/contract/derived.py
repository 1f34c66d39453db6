"""Derive an OpenAPI 3.2 document, which can describe event streams, from the served OpenAPI 3.0 document.

The description of `StreamEvent` becomes a schema; everything else keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DONE = "[DONE]"
_CHUNK = {"$ref": "#/components/schemas/ChatCompletionChunk"}
_ERROR = {"$ref": "#/components/schemas/ErrorEnvelope"}

#: One event: `data` is a chunk or an error envelope as JSON, or the string that ends the stream.
EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "if": {"const": _DONE},
            "else": {
                "contentMediaType": "application/json",
                "contentSchema": {"if": {"type": "object", "required": ["error"]}, "then": _ERROR, "else": _CHUNK},
            },
        }
    },
}
#: All events: at least two, with exactly one end.
STREAM = {
    "type": "array",
    "minItems": 2,
    "contains": {"type": "object", "properties": {"data": {"const": _DONE}}},
    "minContains": 1,
    "maxContains": 1,
}
CHAT_STREAM = {"schema": STREAM, "itemSchema": EVENT}
RUN_STREAM = {
    "schema": {"type": "array"},
    "itemSchema": {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": "#/components/schemas/RunEvent"},
            }
        },
    },
}

#: Events of a response: `data` is an event as JSON, or the string that ends the stream.
RESPONSE_STREAM = {
    "schema": STREAM,
    "itemSchema": {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "string",
                "if": {"const": _DONE},
                "else": {
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": "#/components/schemas/ResponseEvent"},
                },
            }
        },
    },
}


def to_streaming_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """`document` (OpenAPI 3.0) as OpenAPI 3.2, with schemas for event streams and the data of their events."""
    derived: dict[str, Any] = _translate(document)
    derived["openapi"] = "3.2.0"
    for path, item in derived["paths"].items():
        for operation in item.values():
            for response in operation["responses"].values():
                if "text/event-stream" in response.get("content", {}):
                    response["content"]["text/event-stream"] = _stream_of(path)
    return derived


def _stream_of(path: str) -> dict[str, Any]:
    if path.startswith("/v1/responses"):
        return RESPONSE_STREAM
    return RUN_STREAM if path.endswith("/events") else CHAT_STREAM


def _translate(node: Any) -> Any:
    if isinstance(node, list):
        return [_translate(part) for part in node]
    if not isinstance(node, dict):
        return node
    translated = {key: _translate(part) for key, part in node.items() if key != "nullable"}
    if node.get("nullable") is not True:
        return translated
    if isinstance(node.get("type"), str):
        return {**translated, "type": [node["type"], "null"]}
    return {"anyOf": [{"type": "null"}, translated]}
