"""Contents of calls of models as attributes: JSON, as OpenTelemetry's semantic conventions for generative AI have it.

Pictures are only named, long texts are cut, and of long conversations only the last messages are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from service.core.messages import Message, Role, Text, ToolCall
from service.core.signals import ModelAnswered

MAX_MESSAGES = 50
MAX_TEXT_CHARACTERS = 8_000


def cut(text: str) -> str:
    """Return `text`, or its beginning with a mark if it is long."""
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[:MAX_TEXT_CHARACTERS]}[...]"


def to_instructions(system: str) -> str:
    """Return `gen_ai.system_instructions`."""
    return _dump([_text(system)])


def to_input(messages: Sequence[Message]) -> str:
    """Return `gen_ai.input.messages`."""
    return _dump([{"role": message.role, "parts": _parts(message)} for message in messages[-MAX_MESSAGES:]])


def to_output(event: ModelAnswered) -> str:
    """Return `gen_ai.output.messages`."""
    parts = [*([_text(event.text)] if event.text else []), *map(_call, event.tool_calls)]
    reason = "tool_call" if event.stop_reason == "tool_calls" else event.stop_reason
    return _dump([{"role": Role.ASSISTANT, "parts": parts, "finish_reason": reason}])


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": cut(message.text)}]
    parts = [_text(part.text) if isinstance(part, Text) else {"type": "image"} for part in message.parts]
    return [*parts, *map(_call, message.tool_calls)]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": cut(text)}


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = orjson.loads(call.arguments) if len(call.arguments) <= MAX_TEXT_CHARACTERS else cut(call.arguments)
    except ValueError:
        arguments = call.arguments
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments}


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()
