"""Values inside the protocol's payloads that several kinds of frame have in common."""

from __future__ import annotations

from typing import Any

import orjson

from service.core.messages import Usage


def to_usage(usage: Usage) -> dict[str, int]:
    """Tokens as the protocol counts them."""
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
    """A call's arguments as an object; what the model wrote is not always one."""
    try:
        parsed = orjson.loads(arguments or "{}")
        orjson.dumps([[parsed]])  # what is read can be nested deeper than what can be written
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return {"text": arguments}
    return parsed if isinstance(parsed, dict) else {"value": parsed}
