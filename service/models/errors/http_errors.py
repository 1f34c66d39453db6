"""What a provider says when it will not answer, in the one vocabulary every dialect shares.

A refusal is told with the provider's own words where the caller can act on them, and never with a secret of ours.
"""

from __future__ import annotations

import math
import re
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

from service.core.errors import NO_RETRY, GatewayError
from service.models.errors.error_text import error_text
from service.models.http.transport import Upstream, UpstreamResponse

_REJECTED = frozenset({400, 413, 422})
#: What may pass by itself, beside 5xx.
_PASSING = frozenset({408, 409, 425, 429})
_MAX_ERROR_BYTES = 64 * 1024
#: For an error's body as a whole: the status has told that it failed, this only says why.
_ERROR_BODY_SECONDS = 10.0
_MAX_WAIT_SECONDS = 999_999
_SECONDS = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)
#: A key as providers show it, its middle left out: sk-abc***xyz, sk-abc...xyz.
_SHORTENED_KEY = re.compile(r"\S*(?:\*{3}|[\w-](?:\.{3}|\u2026)(?=\w))\S*")
#: A quota that only paying mends; Google says the same of one that is full again within the minute, and when.
_SPENT = re.compile(
    r"insufficient_quota|insufficient (balance|credits?|funds)|exceeded your current quota|billing (hard )?limit",
    re.IGNORECASE,
)
_LATER = re.compile(r"(retry|try again) (in|after) [\d.]+ ?(ms|s|m)", re.IGNORECASE)
#: More at once than a limit ever has room for, told with 429 by OpenAI and with 413 by Groq: "Request too large for
#: gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 45000."
TOO_LARGE_AT_ANY_TIME = re.compile(r"request too large for (model\b|[^:]{0,160}\btokens\w* per\b)", re.IGNORECASE)
_IS_BASE_URL_RIGHT = "Is its baseUrl right?"
_PATHS = ("/chat/completions", "/v1/messages")

#: What stands before the provider's words in a message that may be logged up to there.
SAYS = " It says: "


class LastingError(GatewayError):
    """A failure of the provider's that does not pass by itself: asking again is no use, asking another model may be."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, headers=NO_RETRY)


class NotThereError(GatewayError):
    """The provider has no such model, or nothing at its address: not the caller's affair, and another may be there."""


def check_success(upstream: Upstream, response: UpstreamResponse) -> None:
    """Return if `response` is an answer of the model; else raise what it stands for, having read the rest of it."""
    if not 200 <= response.status < 300:  # noqa: PLR2004 - the family of statuses that mean success
        raise _refusal(upstream, response)


def check_no_page(response: UpstreamResponse) -> None:
    """Raise for a web page: what calls itself one, and in which nothing of an answer was found."""
    if (response.header("content-type") or "").startswith("text/html"):
        raise LastingError("provider_error", f"The model provider answered with a web page. {_IS_BASE_URL_RIGHT}")


def _refusal(upstream: Upstream, response: UpstreamResponse) -> GatewayError:
    try:
        within_seconds = min(upstream.read_timeout_seconds, _ERROR_BODY_SECONDS)
        detail = error_text(upstream, response.read_all(_MAX_ERROR_BYTES, within_seconds))
    except GatewayError:
        detail = ""  # the status alone has to tell
    if 300 <= response.status < 400:  # noqa: PLR2004 - the family of statuses that point elsewhere
        return _moved(upstream, response.status, response.header("location") or "")
    return status_error(response.status, detail, _told_wait(response))


def _told_wait(response: UpstreamResponse) -> str:
    """The `Retry-After` of a response; OpenAI and Azure tell it in milliseconds, too."""
    milliseconds = (response.header("retry-after-ms") or "").strip()
    if _SECONDS.fullmatch(milliseconds):
        return f"{float(milliseconds) / 1000:.3f}"
    return response.header("retry-after") or ""


def status_error(status: int, detail: str = "", retry_after: str = "") -> GatewayError:
    """The error for HTTP `status`, `detail` being the provider's words and `retry_after` its header, perhaps empty."""
    if status == 429 and _SPENT.search(detail) and not _LATER.search(detail):  # noqa: PLR2004 - Too Many Requests
        return LastingError("rate_limit_exceeded", f"The model provider's quota is used up (HTTP 429).{_says(detail)}")
    if status == 429 and TOO_LARGE_AT_ANY_TIME.search(detail):  # noqa: PLR2004
        status = 413  # as Groq says it: no wait makes room for it
    is_passing = status in _PASSING or status >= 500  # noqa: PLR2004 - the provider's own failures
    error = _passing_error(status, detail) if is_passing else _lasting_error(status, detail)
    seconds = _to_seconds(retry_after) if is_passing else None
    if seconds is not None:
        error.headers["Retry-After"] = str(seconds)
    return error


def _passing_error(status: int, detail: str) -> GatewayError:
    because = _because(status, detail)
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        return GatewayError("rate_limit_exceeded", f"The model provider's rate limit is exceeded{because}")
    if status in (408, 504):
        return GatewayError("provider_timeout", f"The model provider did not answer in time{because}")
    return GatewayError("provider_error", f"The model provider failed{because}")


def _lasting_error(status: int, detail: str) -> GatewayError:
    if status in _REJECTED:
        return GatewayError(
            "provider_rejected_request", f"The model provider rejected the request{_because(status, detail)}"
        )
    if status == 404:  # noqa: PLR2004 - Not Found
        hint = "" if "model" in detail.lower() else f" {_IS_BASE_URL_RIGHT}"
        text = f"The model provider rejected the request{_because(status, detail)}{hint}"
        return NotThereError("provider_rejected_request", text)
    says = _says(detail)
    if status in (401, 403):
        refused = "refused the gateway's credentials" if status == 401 else "does not let the gateway in"  # noqa: PLR2004
        wanted = "Correct its apiKey." if status == 401 else "Look at its apiKey and what that may do."  # noqa: PLR2004
        return GatewayError(
            "provider_authentication_failed", f"The model provider {refused} (HTTP {status}). {wanted}{says}"
        )
    if status == 402:  # noqa: PLR2004 - Payment Required
        return LastingError("provider_error", f"The model provider wants to be paid first (HTTP {status}).{says}")
    message = f"The model provider will not answer such requests (HTTP {status}). {_IS_BASE_URL_RIGHT}{says}"
    return LastingError("provider_error", message)


def _says(detail: str) -> str:
    return f"{SAYS}{_SHORTENED_KEY.sub('***', detail)}" if detail else ""


def _because(status: int, detail: str) -> str:
    return f": {detail}" if detail else f" (HTTP {status})."


def _moved(upstream: Upstream, status: int, location: str) -> GatewayError:
    """A redirect, which is not followed: it may lead anywhere, and the request has a key."""
    there = urlsplit(urljoin(upstream.address, location))
    path = next((there.path.removesuffix(end) for end in _PATHS if there.path.endswith(end)), None)
    hint = "Correct its baseUrl."
    if path is not None and there.hostname:
        netloc = there.netloc.rpartition("@")[2]
        hint = f"Correct its baseUrl, perhaps to {upstream.redact(f'{there.scheme}://{netloc}{path}')}."
    return LastingError("provider_error", f"The model provider points elsewhere (HTTP {status}). {hint}")


def _to_seconds(retry_after: str) -> int | None:
    """The wait that a `Retry-After` header asks for, in whole seconds or up to a date; `None` for nonsense."""
    told = retry_after.strip()
    try:
        seconds = float(told) if _SECONDS.fullmatch(told) else parsedate_to_datetime(told).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError):
        return None
    return math.ceil(min(max(0.0, seconds), _MAX_WAIT_SECONDS))
