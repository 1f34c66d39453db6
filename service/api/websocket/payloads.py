"""Payload values that several kinds of frame share."""

from __future__ import annotations

from typing import Any

import orjson

from service.core.messages import Usage


def to_usage(usage: Usage) -> dict[str, int]:
    """Return token counts in the protocol's form."""
    return {
        "input": usage.input_tokens - usage.cached_tokens,
        "output": usage.output_tokens,
        "cacheRead": usage.cached_tokens,
        "total": usage.input_tokens + usage.output_tokens,
    }


def to_chat_message(text: str, at_ms: int) -> dict[str, Any]:
    """Return an assistant message in the form of `chat` events."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}], "timestamp": at_ms}


def parse_arguments(arguments: str) -> Any:
    """Parse a call's arguments to an object; wrap what is not one, because models write invalid JSON."""
    try:
        parsed = orjson.loads(arguments or "{}")
        orjson.dumps([[parsed]])  # the parser accepts deeper nesting than the encoder
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return {"text": arguments}
    return parsed if isinstance(parsed, dict) else {"value": parsed}
