"""Extract the message and the HTTP status of an error from the many shapes providers use.

Besides OpenAI's `{"error": {"message", "type", "code"}}` these are FastAPI's `detail`, lists of `errors`, plain
text and OpenRouter's `metadata.raw` with the original provider's error (https://openrouter.ai/docs/api-reference/errors).
"""

from __future__ import annotations

from typing import Any

import orjson

from service.models.http.transport import Upstream

_MAX_MESSAGE_CHARS = 500
_MAX_PLAIN_BYTES = 1000
_MAX_DEPTH = 8
#: Reported entries of a list of validation errors.
_MAX_FAULTS = 3
_MESSAGE_FIELDS = ("error", "message", "detail", "errors", "msg")
#: Codes that are reported with the message because it may not say the same.
_REPORTED_CODES = ("context_length_exceeded", "exceed_context_size_error", "insufficient_quota")
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
    """Return the message in an error body, redacted and at most 500 characters; empty if there is none."""
    try:
        error: Any = orjson.loads(body)
    except ValueError:
        error = plain_text(body)
    return error_words(upstream, error)


def error_words(upstream: Upstream, error: Any) -> str:
    """Return the message of a decoded error body, or of the part of it that is the error; see `error_text`."""
    return upstream.redact(_words(error))[:_MAX_MESSAGE_CHARS]


def error_status(error: Any) -> int | None:
    """Return the HTTP status that an error inside a response corresponds to, by its code or else its type."""
    fields = error if isinstance(error, dict) else {}
    for name in ("code", "status", "status_code", "type"):
        code = fields.get(name)
        if isinstance(code, str):
            code = int(code) if code.isascii() and code.isdigit() else _STATUSES.get(code)
        if isinstance(code, int) and code in _ERROR_STATUSES:
            return code
    return None


def plain_text(body: bytes) -> str:
    """Return `body` if it is short plain text, else an empty string."""
    if len(body) > _MAX_PLAIN_BYTES:
        return ""
    try:
        text = " ".join(body.decode().split())
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and not text.startswith("<") else ""


def _words(error: Any, depth: int = 0) -> str:
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(error, str):
        return _unwrapped(error, depth)
    if isinstance(error, list):
        found = (_words(one, depth + 1) for one in error[:_MAX_FAULTS])
        return "; ".join(filter(None, found))
    if not isinstance(error, dict):
        return ""
    metadata = error.get("metadata")
    words = _words(metadata.get("raw"), depth + 1) if isinstance(metadata, dict) else ""
    found = (_words(error.get(name), depth + 1) for name in _MESSAGE_FIELDS)
    words = words or _location(error) + next(filter(None, found), "")
    code = next((code for name in ("code", "type") if (code := error.get(name)) in _REPORTED_CODES), "")
    return words if code in words else f"{code}: {words}" if words else str(code)


def _unwrapped(text: str, depth: int) -> str:
    """Return the message of an error that is itself JSON text, else the text."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return _words(orjson.loads(text), depth + 1) or text
        except ValueError:
            pass
    return text


def _location(error: dict[str, Any]) -> str:
    """Return the location of a validation error as a prefix (`body.messages.0: `), empty without one."""
    location = error.get("loc")
    return ".".join(map(str, location)) + ": " if isinstance(location, list) and error.get("msg") else ""
