"""Decode request frames; encode response and event frames.

Free of I/O, but other greenlets run while a large frame is checked.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import orjson

from service.api.http.body_limits import check_value_count
from service.api.http.json_repair import replace_lone_surrogates
from service.core.dataclass import record
from service.core.errors import GatewayError

PROTOCOL = 4

#: Limit of one message of a client, after and during the handshake.
MAX_PAYLOAD_BYTES = 25 * 1024 * 1024
MAX_HANDSHAKE_BYTES = 64 * 1024

#: Response id for frames without a usable id.
NO_ID = "invalid"

MAX_ID_CHARACTERS = 512
_RETRYABLE = (429, 503, 504)

#: An escaped surrogate, lone or not.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

#: An `id` that only members with plain strings precede.
_LEADING_ID = re.compile(rb'\s*\{(?:\s*"[^"\\]{0,99}"\s*:\s*"[^"\\]{0,999}"\s*,){0,9}?\s*"id"\s*:\s*"([^"\\]{1,999})"')

#: Larger frames that are not valid JSON are not parsed a second time for their id.
_MAX_SEARCHED_BYTES = 1024 * 1024


@record
class Request:
    """A request: `id` names its responses, `params` is not checked yet.

    `traceparent` is the caller's, of W3C's Trace Context, valid or not.
    """

    id: str
    method: str
    params: dict[str, Any]
    traceparent: str | None = None


class FrameError(Exception):
    """An invalid request frame; `id` is that of the error response."""

    def __init__(self, frame_id: str, error: GatewayError) -> None:
        super().__init__(error.message)
        self.id = frame_id
        self.error = error


def parse_request(message: bytes | None) -> Request:
    """Parse a message; `None` is a binary one. Lone surrogates become U+FFFD. Raises `FrameError`."""
    if message is None:
        raise FrameError(NO_ID, _malformed("The message is binary. Send frames as text messages."))
    frame = _load(message)
    if not isinstance(frame, dict):
        raise FrameError(NO_ID, _malformed("A frame must be a JSON object."))
    frame_id, method, params = frame.get("id"), frame.get("method"), frame.get("params")
    if not isinstance(frame_id, str) or not 1 <= len(frame_id) <= MAX_ID_CHARACTERS:
        text = f"A request needs an `id`, a string of 1 to {MAX_ID_CHARACTERS} characters."
        raise FrameError(NO_ID, _malformed(text))
    if frame.get("type") != "req":
        raise FrameError(frame_id, _malformed('A client sends requests: `type` must be "req".'))
    if not isinstance(method, str) or not method:
        raise FrameError(frame_id, _malformed("`method` must be the name of a method."))
    if not isinstance(params, dict | None):
        raise FrameError(frame_id, _malformed("`params` must be an object."))
    trace = frame.get("traceparent")
    return Request(frame_id, method, params or {}, trace if isinstance(trace, str) and trace else None)


def _load(message: bytes) -> Any:
    try:
        check_value_count(message)
        return orjson.loads(message)
    except GatewayError as error:
        raise FrameError(find_leading_id(message), error) from None
    except orjson.JSONDecodeError as error:
        if _SURROGATE.search(message):
            with suppress(orjson.JSONDecodeError):
                return orjson.loads(replace_lone_surrogates(message))
        text = f"The frame is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        raise FrameError(_find_id(message), GatewayError("invalid_json", text)) from None


def _find_id(message: bytes) -> str:
    """Return the id of a frame that is not valid JSON if it is unambiguous; else `NO_ID`."""
    try:
        text = message.decode()
        frame = json.loads(text) if len(message) <= _MAX_SEARCHED_BYTES else None  # takes NaN and 1e400
    except (ValueError, RecursionError):
        frame = None
    frame_id = frame.get("id") if isinstance(frame, dict) else None
    if not isinstance(frame_id, str):
        return find_leading_id(message)
    is_usable = 1 <= len(frame_id) <= MAX_ID_CHARACTERS and not any("\ud800" <= one <= "\udfff" for one in frame_id)
    return frame_id if is_usable and is_utf8(message) else NO_ID


def find_leading_id(message: bytes) -> str:
    """The id of a frame that is not parsed, where only a few short strings precede it; else `NO_ID`."""
    match = _LEADING_ID.match(message)
    frame_id = match[1].decode(errors="replace") if match else ""
    return frame_id if 1 <= len(frame_id) <= MAX_ID_CHARACTERS and is_utf8(message) else NO_ID


def is_utf8(message: bytes) -> bool:
    """Return True if a text message is valid UTF-8, as RFC 6455 requires."""
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def _malformed(message: str) -> GatewayError:
    return GatewayError("malformed_request", f"Invalid request frame: {message}")


def to_response(request_id: str, payload: object) -> bytes:
    """Encode a success response."""
    return orjson.dumps({"type": "res", "id": request_id, "ok": True, "payload": payload})


def to_failure(request_id: str, error: GatewayError, payload: object = None) -> bytes:
    """Encode an error response, with `payload` for methods that return one with their errors."""
    frame = {"type": "res", "id": request_id, "ok": False, "error": to_error(error)}
    if payload is not None:
        frame["payload"] = payload
    return orjson.dumps(frame)


def to_error(error: GatewayError) -> dict[str, Any]:
    """Return `error` in the protocol's form; programs should use its `details.code`."""
    details: dict[str, Any] = {"code": error.kind.detail or error.code.upper()}
    if error.param is not None:
        details["param"] = error.param
    body: dict[str, Any] = {
        "code": error.kind.websocket_code,
        "message": error.message,
        "details": {**details, **error.details},
    }
    if error.status in _RETRYABLE and error.is_retryable:
        body["retryable"] = True
    if (seconds := error.headers.get("Retry-After")) is not None:
        body["retryAfterMs"] = int(seconds) * 1000
    return body


def to_event(name: str, payload: bytes, seq: int | None = None) -> bytes:
    """Encode an event. `payload` is encoded JSON, shared by all connections; `seq` differs."""
    tail = b"}" if seq is None else b',"seq":%d}' % seq
    return b'{"type":"event","event":%b,"payload":%b%b' % (orjson.dumps(name), payload, tail)
