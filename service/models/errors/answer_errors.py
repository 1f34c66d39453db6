"""Errors that providers send inside a successful response: as an event, as the whole body or beside an empty answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from service.core.errors import GatewayError
from service.models.errors.context_overflow import states_token_overflow
from service.models.errors.error_text import error_status, error_words, plain_text
from service.models.errors.http_errors import is_exhausted, status_error
from service.models.http.transport import Upstream

_MESSAGE_FIELDS = ("detail", "msg", "message", "errors", "error_msg", "error_message")
_SUCCESS_CODES = (0, 200, "0", "200")
_SUCCESS_WORDS = ("", "0", "200", "0000", "ok", "success", "successful", "succeeded", "no error", "none", "null")
#: Words in the `type` of an event that reports progress.
_PROGRESS = frozenset(("status", "ping", "progress", "heartbeat", "keepalive", "info", "queue", "queued", "loading"))
_WORD = re.compile(r"[a-z]+")


def find_error(event: Mapping[str, Any]) -> Any:
    """Return the error that `event` carries, `None` without one."""
    if (error := event.get("error")) and not _is_success(error):
        return error
    if event.get("object") == "error" or event.get("type") == "error":
        return event
    status = event.get("base_resp")
    if isinstance(status, dict) and stated_error(status.get("status_code")):  # MiniMax
        return {"code": status["status_code"], "message": status.get("status_msg")}
    return None


def stated_error(error: Any) -> Any:
    """Return `error`, `None` if it states nothing: empty, as some servers send with each event, or a success."""
    return None if error is None or _is_success(error) else error


def _is_success(value: Any, depth: int = 10) -> bool:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_success(one, depth - 1) for one in inner)
    if isinstance(value, str):
        return value.strip().rstrip(".!").lower() in _SUCCESS_WORDS
    return not value or value in _SUCCESS_CODES


def find_bare_error(event: Mapping[str, Any]) -> Any:
    """Return `event` if it is an error without a frame around it, such as `{"detail": "..."}`, else `None`.

    Only for events without any part of an answer.
    """
    if not any(isinstance(stated_error(event[name]), str | list) for name in _MESSAGE_FIELDS if name in event):
        return None
    if event.get("code") in _SUCCESS_CODES or event.get("status") in _SUCCESS_CODES:
        return None
    kind = _WORD.findall(str(event.get("type") or "").lower())
    return None if "error" not in kind and not _PROGRESS.isdisjoint(kind) else event


def unreadable_error(upstream: Upstream, payload: bytes, message: str) -> GatewayError:
    """Create the error for `payload`, which is no event: of its words if it is plain text, else of `message`."""
    words = "" if payload.lstrip().startswith((b"{", b"[")) else plain_text(payload)
    return answer_error(upstream, words) if words else GatewayError("provider_error", message)


def answer_error(upstream: Upstream, error: Any, status: int | None = None, *, finish_reason: str = "") -> GatewayError:
    """Create the error for `error` in a response, with the HTTP `status` that it would have had, if that is known."""
    detail = error_words(upstream, error)
    if status is None:
        status = error_status(error)
    if status is None and is_exhausted(detail):
        status = 429
    if status is None and states_token_overflow(detail):
        status = 400
    if status is not None:
        return status_error(status, detail)
    reason = detail or (f"it ended with {finish_reason}." if finish_reason else "no reason given.")
    return GatewayError("provider_error", f"The model provider failed in the middle of its answer: {reason}")
