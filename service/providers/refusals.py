"""What a provider says when it will not answer, in the one vocabulary every dialect shares.

A refusal is told with the provider's own words where the caller can act on them, and never with a secret of ours.
"""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from service.errors import GatewayError
from service.providers.transport import Upstream, UpstreamResponse

_REJECTED = frozenset({400, 404, 413, 422})
_MAX_ERROR_BYTES = 64 * 1024
_MAX_MESSAGE_CHARS = 500
#: For an error's body as a whole: the status has told that it failed, this only says why.
_ERROR_BODY_SECONDS = 10.0
#: The statuses that may say when to come back; dates are told on as seconds.
_RETRY_LATER = frozenset({408, 409, 429, 503})
_MAX_WAIT_SECONDS = 999_999


def refusal(upstream: Upstream, response: UpstreamResponse) -> GatewayError:
    """The error that a status other than success stands for; reads the rest of the answer."""
    try:
        within_seconds = min(upstream.read_timeout_seconds, _ERROR_BODY_SECONDS)
        detail = error_text(upstream, response.read_all(_MAX_ERROR_BYTES, within_seconds))
    except GatewayError:
        detail = ""  # the status alone has to tell
    return status_error(response.status, detail, response.header("retry-after") or "")


def status_error(status: int, detail: str = "", retry_after: str = "") -> GatewayError:
    """The error for HTTP `status`, `detail` being the provider's words and `retry_after` its header, perhaps empty."""
    error = _status_error(status, f": {detail}" if detail else f" (HTTP {status}).")
    seconds = _to_seconds(retry_after) if status in _RETRY_LATER else None
    if seconds is not None:
        error.headers["Retry-After"] = str(seconds)
    return error


def _status_error(status: int, because: str) -> GatewayError:
    if status in _REJECTED:
        return GatewayError("provider_rejected_request", f"The model provider rejected the request{because}")
    if status in (401, 403):
        return GatewayError(
            "provider_authentication_failed",
            f"The model provider refused the gateway's credentials (HTTP {status}). Correct its apiKey.",
        )
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        return GatewayError("rate_limit_exceeded", f"The model provider's rate limit is exceeded{because}")
    if status in (408, 504):
        return GatewayError("provider_timeout", f"The model provider did not answer in time{because}")
    return GatewayError("provider_error", f"The model provider failed{because}")


def _to_seconds(retry_after: str) -> int | None:
    """The wait that a `Retry-After` header asks for, in whole seconds or up to a date; `None` for nonsense."""
    told = retry_after.strip()
    if told.isascii() and told.isdecimal():
        return int(told) if len(told) <= len(str(_MAX_WAIT_SECONDS)) else _MAX_WAIT_SECONDS
    try:
        seconds = parsedate_to_datetime(told).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError):
        return None
    return min(max(0, math.ceil(seconds)), _MAX_WAIT_SECONDS)


def error_text(upstream: Upstream, body: bytes) -> str:
    """What the provider says is wrong, wherever it says it: at most 500 characters, and no secret of ours."""
    try:
        told: Any = orjson.loads(body)
    except ValueError:
        return ""
    for _ in range(3):  # [{"error": {"message": ...}}] is the deepest that is in use
        if isinstance(told, list):
            told = told[0] if told else None
        elif isinstance(told, dict):
            told = told.get("error") or told.get("message") or told.get("detail")
    return upstream.redact(told)[:_MAX_MESSAGE_CHARS] if isinstance(told, str) else ""
