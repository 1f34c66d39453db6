"""The errors of answers."""

from __future__ import annotations

import httpx

from .models import ErrorDetails, ErrorEnvelope


def to_envelope(response: httpx.Response) -> ErrorEnvelope:
    """Return the error of an answer that has been read.

    An answer that is not the gateway's, such as a proxy's page, is `internal_error` with the phrase of its status.
    """
    try:
        return ErrorEnvelope.from_dict(response.json())
    except (AttributeError, KeyError, TypeError, ValueError):
        message = f"{response.status_code} {response.reason_phrase}".strip()
        return ErrorEnvelope(ErrorDetails(message=message, type_="api_error", param=None, code="internal_error"))
