"""Map provider HTTP errors to `GatewayError`, the same for every dialect.

The provider's own message is included where the caller can act on it, with secrets redacted.
"""

from __future__ import annotations

import math
import re
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

from service.core.errors import NO_RETRY, GatewayError
from service.models.errors.context_overflow import ALWAYS_TOO_LARGE, states_token_overflow
from service.models.errors.error_text import error_text
from service.models.http.response import UpstreamResponse
from service.models.http.transport import Upstream

_REJECTED = frozenset({400, 413, 422})
#: Temporary failures besides 5xx.
_TEMPORARY = frozenset({408, 409, 425, 429})
_MAX_ERROR_BYTES = 64 * 1024
#: Time limit for the whole error body, which is only informative.
_ERROR_BODY_SECONDS = 10.0
_MAX_WAIT_SECONDS = 999_999
_SECONDS = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)
#: An abbreviated key in provider messages: sk-abc***xyz, sk-abc...xyz.
_SHORTENED_KEY = re.compile(r"\S*(?:\*{3}|[\w-](?:\.{3}|\u2026)(?=\w))\S*")
#: A quota that needs payment. Google uses the same words for one that resets within a minute, with the time.
_EXHAUSTED = re.compile(
    r"insufficient_quota|insufficient (balance|credits?|funds)|exceeded your current quota|billing (hard )?limit",
    re.IGNORECASE,
)
_RETRY_HINT = re.compile(r"(retry|try again) (in|after) [\d.]+ ?(ms|s|m)", re.IGNORECASE)
_CHECK_BASE_URL = "Check its baseUrl."

#: Separates our part of a message, which may be logged, from the provider's.
DETAIL_PREFIX = " It says: "


class NonRetryableError(GatewayError):
    """A permanent failure of a provider: no retry, but another model may work."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, headers=NO_RETRY)


class ModelMissingError(GatewayError):
    """The provider does not have the model, or nothing at its address; another model may work."""


def check_success(upstream: Upstream, response: UpstreamResponse, path: str) -> None:
    """Return if `response` of the endpoint `path` has a success status, else raise its error."""
    if not 200 <= response.status < 300:  # noqa: PLR2004 - success
        raise _error_of(upstream, response, path)


def check_no_page(response: UpstreamResponse) -> None:
    """Raise if `response`, in which no answer was found, is labelled as a web page."""
    if (response.header("content-type") or "").startswith("text/html"):
        raise NonRetryableError("provider_error", f"The model provider answered with a web page. {_CHECK_BASE_URL}")


def _error_of(upstream: Upstream, response: UpstreamResponse, path: str) -> GatewayError:
    try:
        within_seconds = min(upstream.read_timeout_seconds, _ERROR_BODY_SECONDS)
        detail = error_text(upstream, response.read_all(_MAX_ERROR_BYTES, within_seconds))
    except GatewayError:
        detail = ""  # the status alone has to do
    if 300 <= response.status < 400:  # noqa: PLR2004 - redirection
        return _redirect_error(upstream, response, path)
    return status_error(response.status, detail, _retry_after(response))


def _retry_after(response: UpstreamResponse) -> str:
    """Return the `Retry-After` of a response; OpenAI and Azure also send it in milliseconds."""
    milliseconds = (response.header("retry-after-ms") or "").strip()
    if _SECONDS.fullmatch(milliseconds):
        return f"{float(milliseconds) / 1000:.3f}"
    return response.header("retry-after") or ""


def is_exhausted(detail: str) -> bool:
    """True if the provider's message is about a quota that waiting does not restore."""
    return bool(_EXHAUSTED.search(detail)) and not _RETRY_HINT.search(detail)


def status_error(status: int, detail: str = "", retry_after: str = "") -> GatewayError:
    """Create the error for HTTP `status` from the provider's message and its `Retry-After`, each may be empty."""
    if status == 429 and is_exhausted(detail):  # noqa: PLR2004 - Too Many Requests
        return NonRetryableError(
            "rate_limit_exceeded", f"The model provider's quota is used up (HTTP 429).{_says(detail)}"
        )
    if status == 429 and ALWAYS_TOO_LARGE.search(detail):  # noqa: PLR2004
        status = 413  # as Groq does: waiting does not help
    if status >= 500 and states_token_overflow(detail):  # noqa: PLR2004 - a request that some servers fail on
        status = 400
    is_temporary = status in _TEMPORARY or status >= 500  # noqa: PLR2004 - the provider's own failures
    error = _temporary_error(status, detail) if is_temporary else _permanent_error(status, detail)
    seconds = _to_seconds(retry_after) if is_temporary else None
    if seconds is not None:
        error.headers["Retry-After"] = str(seconds)
    return error


def _temporary_error(status: int, detail: str) -> GatewayError:
    because = _because(status, detail)
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        return GatewayError("rate_limit_exceeded", f"The model provider's rate limit is exceeded{because}")
    if status in (408, 504):
        return GatewayError("provider_timeout", f"The model provider did not answer in time{because}")
    return GatewayError("provider_error", f"The model provider failed{because}")


def _permanent_error(status: int, detail: str) -> GatewayError:
    if status in _REJECTED:
        return GatewayError(
            "provider_rejected_request", f"The model provider rejected the request{_because(status, detail)}"
        )
    if status == 404:  # noqa: PLR2004 - Not Found
        hint = "" if "model" in detail.lower() else f" {_CHECK_BASE_URL}"
        text = f"The model provider rejected the request{_because(status, detail)}{hint}"
        return ModelMissingError("provider_rejected_request", text)
    says = _says(detail)
    if status in (401, 403):
        refused = "refused the gateway's credentials" if status == 401 else "denied the gateway access"  # noqa: PLR2004
        wanted = "Correct its apiKey." if status == 401 else "Check its apiKey and the permissions of that key."  # noqa: PLR2004
        return GatewayError(
            "provider_authentication_failed", f"The model provider {refused} (HTTP {status}). {wanted}{says}"
        )
    if status == 402:  # noqa: PLR2004 - Payment Required
        return NonRetryableError("provider_error", f"The model provider requires payment (HTTP {status}).{says}")
    message = f"The model provider does not support such requests (HTTP {status}). {_CHECK_BASE_URL}{says}"
    return NonRetryableError("provider_error", message)


def _says(detail: str) -> str:
    return f"{DETAIL_PREFIX}{_SHORTENED_KEY.sub('***', detail)}" if detail else ""


def _because(status: int, detail: str) -> str:
    return f": {detail}" if detail else f" (HTTP {status})."


def _redirect_error(upstream: Upstream, response: UpstreamResponse, path: str) -> GatewayError:
    """Create the error for a redirect, which is not followed because the request carries a key."""
    there = urlsplit(urljoin(upstream.address, response.header("location") or ""))
    hint = "Correct its baseUrl."
    if there.path.endswith(path) and there.hostname:
        base = f"{there.scheme}://{there.netloc.rpartition('@')[2]}{there.path.removesuffix(path)}"
        hint = f"Correct its baseUrl, perhaps to {upstream.redact(base)}."
    return NonRetryableError(
        "provider_error", f"The model provider redirects elsewhere (HTTP {response.status}). {hint}"
    )


def _to_seconds(retry_after: str) -> int | None:
    """Parse a `Retry-After` header, seconds or a date, to whole seconds; `None` if it is invalid."""
    value = retry_after.strip()
    try:
        seconds = float(value) if _SECONDS.fullmatch(value) else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError):
        return None
    return math.ceil(min(max(0.0, seconds), _MAX_WAIT_SECONDS))
