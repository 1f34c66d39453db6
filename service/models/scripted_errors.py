"""The errors of the scripted models `fail-CODE`: as the gateway itself answers, but for the message."""

from __future__ import annotations

from service.core.errors import KINDS, GatewayError

#: No operation that asks a model answers with these.
_OTHERS = frozenset({"run_events_gone", "run_failed", "protocol_mismatch", "unknown_method", "too_many_requests"})

_PARAMS = {
    "malformed_request": "host",
    "invalid_value": "temperature",
    "invalid_type": "messages",
    "missing_required_parameter": "messages",
    "unsupported_parameter": "n",
    "context_length_exceeded": "messages",
    "missing_credentials": "authorization",
    "invalid_api_key": "authorization",
    "host_not_allowed": "host",
    "origin_not_allowed": "origin",
    "user_not_allowed": "x-forwarded-user",
    "run_not_found": "run_id",
    "response_not_found": "response_id",
    "previous_response_not_found": "previous_response_id",
    "session_not_found": "key",
    "approval_not_found": "approval_id",
    "tool_not_found": "tool",
    "model_not_found": "model",
    "idempotency_key_reused": "Idempotency-Key",
    "approval_closed": "approval_id",
    "unsupported_media_type": "content-encoding",
    "tool_choice_not_met": "tool_choice",
    "output_not_valid": "response_format",
}

_SOON = {"Retry-After": "1"}
_HEADERS = {
    "missing_credentials": {"WWW-Authenticate": "Bearer"},
    "invalid_api_key": {"WWW-Authenticate": 'Bearer error="invalid_token"'},
    "method_not_allowed": {"Allow": "POST"},
    **dict.fromkeys(("rate_limit_exceeded", "too_many_runs", "too_many_failed_attempts"), _SOON),
    **dict.fromkeys(("overloaded", "too_many_connections"), _SOON),
}


def is_scripted_error(code: str) -> bool:
    """Return True if there is a model `fail-CODE` for `code`."""
    return code in KINDS and code not in _OTHERS


def scripted_error(code: str) -> GatewayError:
    """Return the error of the model `fail-CODE`: `model_not_found` if there is none for `code`."""
    if not is_scripted_error(code):
        text = f"Unknown error code {code!r}. Use one of those that a chat completion has in openapi.yaml."
        return GatewayError("model_not_found", text, param="x-openclaw-model")
    text = f"This model always fails with {code}."
    return GatewayError(code, text, param=_PARAMS.get(code), headers=_HEADERS.get(code))
