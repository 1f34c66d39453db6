"""Encode messages as JSON text and decode them.

Stored payloads stay readable: a change of format takes the next `PAYLOAD_VERSION` and keeps decoding the old ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from service.core.messages import (
    ApprovalDecision,
    Image,
    Message,
    Part,
    ProviderData,
    Role,
    Text,
    ToolApproval,
    ToolCall,
)
from service.storage.database.errors import StoreError

PAYLOAD_VERSION = 1


def to_payload(message: Message) -> str:
    """Encode `message` without its role. Raises `StoreError` for a lone surrogate."""
    return _to_json(_to_fields(message))


def to_payloads(messages: Sequence[Message]) -> str:
    """Encode `messages` with their roles as a list. Raises `StoreError` for a lone surrogate."""
    return _to_json([{"role": message.role, **_to_fields(message)} for message in messages])


def _to_json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise StoreError(f"A message cannot be stored: {error}") from error


def _to_fields(message: Message) -> dict[str, Any]:
    payload: dict[str, Any] = {"v": PAYLOAD_VERSION, "parts": [_to_part(part) for part in message.parts]}
    if message.name is not None:
        payload["name"] = message.name
    if message.tool_calls:
        payload["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        payload["tool_call_id"] = message.tool_call_id
    if (data := message.provider_data) is not None:
        payload["provider_data"] = {"model": data.model, "message": data.message, "calls": data.calls}
    if message.cut_off is not None:
        payload["cut_off"] = message.cut_off
    if (approval := message.approval) is not None:
        payload["approval"] = {
            "id": approval.id,
            "decision": approval.decision.value,
            "by": approval.decided_by,
            "at_ms": approval.decided_at_ms,
        }
    if message.at_ms is not None:
        payload["at_ms"] = message.at_ms
    if message.duration_ms is not None:
        payload["duration_ms"] = message.duration_ms
    if message.failed:
        payload["failed"] = True
    return payload


def from_payload(role: str, text: str) -> Message:
    """Decode a payload. Raises `StoreError` for one that a newer version has written."""
    return _from_fields(role, orjson.loads(text))


def from_payloads(text: str) -> tuple[Message, ...]:
    """Decode a list of `to_payloads`. Raises like `from_payload`."""
    return tuple(_from_fields(payload["role"], payload) for payload in orjson.loads(text))


def _from_fields(role: str, payload: dict[str, Any]) -> Message:
    if payload["v"] != PAYLOAD_VERSION:
        raise StoreError(f"A stored message has version {payload['v']}; this program reads {PAYLOAD_VERSION}.")
    return Message(
        Role(role),
        tuple(_from_part(part) for part in payload["parts"]),
        payload.get("name"),
        tuple(ToolCall(call["id"], call["name"], call["arguments"]) for call in payload.get("tool_calls", ())),
        payload.get("tool_call_id"),
        ProviderData(**data) if (data := payload.get("provider_data")) else None,
        payload.get("cut_off"),
        _to_approval(approval) if (approval := payload.get("approval")) else None,
        payload.get("at_ms"),
        payload.get("duration_ms"),
        payload.get("failed", False),
    )


def _to_approval(stored: dict[str, Any]) -> ToolApproval:
    return ToolApproval(stored["id"], ApprovalDecision(stored["decision"]), stored["by"], stored["at_ms"])


def _to_part(part: Part) -> dict[str, str]:
    if isinstance(part, Image):
        return {"image": part.url, "detail": part.detail}
    return {"text": part.text}


def _from_part(part: dict[str, str]) -> Part:
    if "image" in part:
        return Image(part["image"], part["detail"])
    return Text(part["text"])
