"""The WebSocket protocol as an AsyncAPI document, made from the schemas that requests are checked against.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import orjson

from service.api.websocket.frames import MAX_ID_CHARACTERS
from service.api.websocket.handshake import CONNECT_SCHEMA, EVENTS
from service.api.websocket.methods import ROWS
from service.core.errors import KINDS

_CHANNEL = {"$ref": "#/channels/gateway"}
_RESPONSES = {"$ref": "#/channels/gateway/messages/response"}


@functools.cache
def encode_asyncapi(version: str) -> bytes:
    """Return the document as JSON; `version` is that of the contract."""
    return orjson.dumps(to_asyncapi(version))


def to_asyncapi(version: str) -> dict[str, Any]:
    """Return an AsyncAPI 3.0 document with an operation for each method.

    Its schemas are JSON Schema. A method whose connection lacks its scope is answered with FORBIDDEN, and one with
    parameters that are not listed with INVALID_REQUEST.
    """
    methods = {"connect": CONNECT_SCHEMA} | {row.name: row.schema for row in ROWS}
    requests = {name: _request(name, schema) for name, schema in methods.items()}
    messages = requests | {"response": _RESPONSE, "event": _EVENT}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "OpenClaw Gateway, WebSocket", "version": version, "description": _DESCRIPTION, **_INFO},
        "servers": {"gateway": _SERVER},
        "defaultContentType": "application/json",
        "channels": {
            "gateway": {
                "address": "/",
                "description": "One connection; any path of the gateway's port accepts it.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "connect": _operation("connect", "Authenticate, and say what the client is."),
            **{row.name: _operation(row.name, row.summary) for row in ROWS},
            "receive_events": _EVENTS,
        },
        "components": {"messages": messages},
    }


_DESCRIPTION = (
    "JSON in text messages. `connect` has to be the first request; `hello-ok`, its payload, lists methods and events. "
    "A request gets one response, and those that start runs a second one at the end of the run."
)
#: As in the contract for HTTP, whose tags are its resources.
_INFO: dict[str, Any] = {
    "contact": {"name": "The operator of this gateway"},
    "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
    "tags": [{"name": "websocket", "description": "Run agents, follow runs, and see sessions and approvals."}],
}
_SERVER: dict[str, Any] = {
    "host": "{address}",
    "protocol": "ws",
    "description": "The gateway; `wss` where TLS is on.",
    "variables": {
        "address": {"default": "127.0.0.1:18789", "description": "Its host and port, which serve HTTP as well."}
    },
}
_EVENTS = {
    "action": "send",
    "description": "What happens at the gateway, to clients with the scope for it.",
    "channel": _CHANNEL,
    "messages": [{"$ref": "#/channels/gateway/messages/event"}],
}
_RESPONSE: dict[str, Any] = {
    "summary": "The response to a request",
    "payload": {
        "type": "object",
        "required": ["type", "id", "ok"],
        "properties": {
            "type": {"const": "res"},
            "id": {"type": "string", "description": "That of the request, or `invalid` if it has none."},
            "ok": {"type": "boolean"},
            "payload": {"description": "What the method returns."},
            "error": {
                "type": "object",
                "required": ["code", "message", "details"],
                "properties": {
                    "code": {"enum": sorted({kind.websocket_code for kind in KINDS.values()})},
                    "message": {"type": "string"},
                    "details": {
                        "type": "object",
                        "required": ["code"],
                        "properties": {"code": {"type": "string"}, "param": {"type": "string"}},
                    },
                    "retryable": {"const": True},
                    "retryAfterMs": {"type": "integer", "minimum": 0},
                },
            },
        },
        "if": {"properties": {"ok": {"const": False}}},
        "then": {"required": ["error"]},
    },
}
_EVENT: dict[str, Any] = {
    "summary": "What happens at the gateway",
    "payload": {
        "type": "object",
        "required": ["type", "event", "payload"],
        "properties": {
            "type": {"const": "event"},
            "event": {"enum": list(EVENTS)},
            "payload": {"type": "object"},
            "seq": {"type": "integer", "minimum": 1, "description": "Counts the events of the connection."},
        },
    },
}


def _operation(name: str, description: str) -> dict[str, Any]:
    message = {"$ref": f"#/channels/gateway/messages/{name}"}
    reply = {"channel": _CHANNEL, "messages": [_RESPONSES]}
    return {
        "action": "receive",
        "description": description,
        "channel": _CHANNEL,
        "messages": [message],
        "reply": reply,
    }


def _request(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    params, needed = _without_notes(schema), bool(schema["required"] or "anyOf" in schema)
    if not needed:
        params["type"] = ["object", "null"]
    payload = {
        "type": "object",
        "required": ["type", "id", "method", *(["params"] if needed else [])],
        "properties": {
            "type": {"const": "req"},
            "id": {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARACTERS},
            "method": {"const": name},
            "params": params,
            "traceparent": {
                "description": "Of W3C's Trace Context, whose trace the run continues; what is none is ignored."
            },
        },
    }
    return {"summary": f"A request of the method {name}", "payload": payload}


def _without_notes(node: Any) -> Any:
    """Return a schema as JSON Schema: without keys for this program and with null as a type.

    `x-values` and `x-pattern` are what a method checks by itself, in words of its own.
    """
    if isinstance(node, list):
        return [_without_notes(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    kept = {key: _without_notes(value) for key, value in node.items() if not key.startswith("x-") and key != "nullable"}
    kept |= {name: node[key] for key, name in (("x-values", "enum"), ("x-pattern", "pattern")) if key in node}
    return kept | {"type": [kept["type"], "null"]} if node.get("nullable") else kept
