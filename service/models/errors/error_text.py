"""What a provider says is wrong, found wherever it says it, and the status that it would have had.

Beside OpenAI's `{"error": {"message", "type", "code"}}` there are FastAPI's `detail`, lists of `errors`, plain text
and OpenRouter's `metadata.raw` with the words of the provider behind it (https://openrouter.ai/docs/api-reference/errors).
"""

from __future__ import annotations

from typing import Any

import orjson

from service.models.http.transport import Upstream

_MAX_MESSAGE_CHARS = 500
_MAX_PLAIN_BYTES = 1000
_MAX_DEPTH = 8
#: Of a list of faults, as validators make it.
_MAX_FAULTS = 3
_PLACES = ("error", "message", "detail", "errors", "msg")
#: Codes that say what their words may not: they are told with them.
_TELLING_CODES = ("context_length_exceeded", "exceed_context_size_error", "insufficient_quota")
_ERROR_STATUSES = range(400, 600)
_STATUSES = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "invalid_request_error": 400,
    "content_policy_violation": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
}


def error_text(upstream: Upstream, body: bytes) -> str:
    """The words in the body of an error, at most 500 characters, with no secret of ours; empty where there are none."""
    try:
        told: Any = orjson.loads(body)
    except ValueError:
        told = _plain(body)
    return error_words(upstream, told)


def error_words(upstream: Upstream, told: Any) -> str:
    """The same of a body that is decoded, or of the part of it that is the error."""
    return upstream.redact(_words(told))[:_MAX_MESSAGE_CHARS]


def error_status(told: Any) -> int | None:
    """The HTTP status that an error told within an answer stands for, by its code or else its type, if it has one."""
    fields = told if isinstance(told, dict) else {}
    for name in ("code", "status", "type"):
        code = fields.get(name)
        if isinstance(code, str):
            code = int(code) if code.isascii() and code.isdigit() else _STATUSES.get(code)
        if isinstance(code, int) and code in _ERROR_STATUSES:
            return code
    return None


def _plain(body: bytes) -> str:
    """A short text that is no page."""
    if len(body) > _MAX_PLAIN_BYTES:
        return ""
    try:
        text = " ".join(body.decode().split())
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and not text.startswith("<") else ""


def _words(told: Any, depth: int = 0) -> str:
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(told, str):
        return _unwrapped(told, depth)
    if isinstance(told, list):
        found = (_words(one, depth + 1) for one in told[:_MAX_FAULTS])
        return "; ".join(filter(None, found))
    if not isinstance(told, dict):
        return ""
    metadata = told.get("metadata")
    words = _words(metadata.get("raw"), depth + 1) if isinstance(metadata, dict) else ""
    words = words or _placed(told) + next(filter(None, (_words(told.get(name), depth + 1) for name in _PLACES)), "")
    code = next((code for name in ("code", "type") if (code := told.get(name)) in _TELLING_CODES), "")
    return words if code in words else f"{code}: {words}" if words else str(code)


def _unwrapped(text: str, depth: int) -> str:
    """What a JSON text says that stands where words belong, else the text."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return _words(orjson.loads(text), depth + 1) or text
        except ValueError:
            pass
    return text


def _placed(told: dict[str, Any]) -> str:
    """The place of a validator's fault (`body.messages.0: `), where it has one."""
    place = told.get("loc")
    return ".".join(map(str, place)) + ": " if isinstance(place, list) and told.get("msg") else ""
