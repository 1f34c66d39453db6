"""The error that callers can act on, and the table of its codes.

Any other exception is a defect: it is logged with its traceback and answered as `internal_error`, never with its own
text.
"""

from __future__ import annotations

from typing import Any

from service.core.dataclass import record


@record
class ErrorKind:
    """Representation of an error code in each protocol.

    `status` is the HTTP status, `type` OpenAI's error type. `websocket_code` is the coarse code of the WebSocket
    protocol and `detail` its fine one, where that is not the code in capitals. Clients must not automatically
    retry an error that is not `retryable`: a retry would fail again, or is not wanted.
    """

    status: int
    type: str
    websocket_code: str = "UNAVAILABLE"
    detail: str | None = None
    retryable: bool = True


_REQUEST, _AUTH, _PERMISSION = "invalid_request_error", "authentication_error", "permission_error"
_LIMIT, _API, _UNAVAILABLE = "rate_limit_error", "api_error", "service_unavailable_error"
_INVALID, _FORBIDDEN = "INVALID_REQUEST", "FORBIDDEN"

#: Every code the gateway returns. The meaning of a code never changes; its messages may.
KINDS: dict[str, ErrorKind] = {
    # the request
    "malformed_request": ErrorKind(400, _REQUEST, _INVALID),
    "invalid_json": ErrorKind(400, _REQUEST, _INVALID),
    "invalid_value": ErrorKind(400, _REQUEST, _INVALID),
    "invalid_type": ErrorKind(400, _REQUEST, _INVALID),
    "missing_required_parameter": ErrorKind(400, _REQUEST, _INVALID),
    "unsupported_parameter": ErrorKind(400, _REQUEST, _INVALID),
    "provider_rejected_request": ErrorKind(400, _REQUEST, _INVALID),
    "context_length_exceeded": ErrorKind(400, _REQUEST, _INVALID),
    "tool_failed": ErrorKind(400, _REQUEST),
    "request_timeout": ErrorKind(408, _REQUEST, _INVALID),
    "session_busy": ErrorKind(409, _REQUEST),
    "idempotency_key_reused": ErrorKind(409, _REQUEST, _INVALID, retryable=False),
    "run_ended": ErrorKind(409, _REQUEST, _INVALID, retryable=False),
    "approval_closed": ErrorKind(409, _REQUEST, _INVALID, "APPROVAL_ALREADY_RESOLVED", retryable=False),
    "run_events_gone": ErrorKind(410, _REQUEST, _INVALID, retryable=False),
    "request_too_large": ErrorKind(413, _REQUEST, _INVALID),
    "uri_too_long": ErrorKind(414, _REQUEST, _INVALID),
    "unsupported_media_type": ErrorKind(415, _REQUEST, _INVALID),
    "protocol_mismatch": ErrorKind(400, _REQUEST, _INVALID),
    "headers_too_large": ErrorKind(431, _REQUEST, _INVALID),
    # authentication and authorization
    "missing_credentials": ErrorKind(401, _AUTH, _INVALID, "AUTH_TOKEN_MISSING"),
    "invalid_api_key": ErrorKind(401, _AUTH, _INVALID, "AUTH_TOKEN_MISMATCH"),
    "too_many_failed_attempts": ErrorKind(429, _LIMIT, _INVALID, "AUTH_RATE_LIMITED"),
    "untrusted_proxy_headers": ErrorKind(403, _PERMISSION, _FORBIDDEN),
    "host_not_allowed": ErrorKind(403, _PERMISSION, _FORBIDDEN),
    "origin_not_allowed": ErrorKind(403, _PERMISSION, _FORBIDDEN),
    "missing_scope": ErrorKind(403, _PERMISSION, _FORBIDDEN),
    "user_not_allowed": ErrorKind(403, _PERMISSION, _FORBIDDEN),
    # missing resources
    "not_found": ErrorKind(404, _REQUEST, _INVALID),
    "run_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "response_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "previous_response_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "session_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "approval_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "tool_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "model_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "endpoint_disabled": ErrorKind(404, _REQUEST, _INVALID),
    "method_not_allowed": ErrorKind(405, _REQUEST, _INVALID),
    "unknown_method": ErrorKind(404, _REQUEST, _INVALID),
    # the gateway and the providers behind it
    "internal_error": ErrorKind(500, _API),
    "provider_error": ErrorKind(502, _API),
    "provider_authentication_failed": ErrorKind(502, _API, retryable=False),
    "tool_choice_not_met": ErrorKind(502, _API),
    "output_not_valid": ErrorKind(502, _API),
    "rate_limit_exceeded": ErrorKind(429, _LIMIT),
    "budget_exceeded": ErrorKind(429, _LIMIT, retryable=False),
    "too_many_runs": ErrorKind(429, _LIMIT),
    "too_many_requests": ErrorKind(429, _LIMIT),
    "too_many_connections": ErrorKind(503, _UNAVAILABLE),
    "overloaded": ErrorKind(503, _UNAVAILABLE),
    "provider_unavailable": ErrorKind(503, _UNAVAILABLE),
    "model_not_installed": ErrorKind(503, _UNAVAILABLE, retryable=False),
    "not_ready": ErrorKind(503, _UNAVAILABLE),
    "shutting_down": ErrorKind(503, _UNAVAILABLE),
    "provider_timeout": ErrorKind(504, _API),
    "run_timeout": ErrorKind(504, _API),
    "run_failed": ErrorKind(502, _API),
    "run_aborted": ErrorKind(503, _UNAVAILABLE, retryable=False),
    "run_interrupted": ErrorKind(503, _UNAVAILABLE),
    "session_lost": ErrorKind(503, _UNAVAILABLE),
    "storage_unavailable": ErrorKind(503, _UNAVAILABLE),
}


#: The header that stops OpenAI's SDKs from retrying a request.
NO_RETRY_HEADER = "x-should-retry"
NO_RETRY = {NO_RETRY_HEADER: "false"}


class GatewayError(Exception):
    """An error that the caller, or the operator of the gateway, can act on.

    `message` is for people: the cause, then the remedy. `param` is the offending field in the caller's notation
    (`messages[2].content`) or the header. `headers` are extra response headers that the contract defines for the
    status (`Retry-After`, `Allow`, `WWW-Authenticate`), `details` further members of the WebSocket error. `reason` is
    what the log may say about it beside the code, without any text of a message.
    """

    reason: str | None = None

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.headers = {**({} if KINDS[code].retryable else NO_RETRY), **(headers or {})}
        self.details = details or {}

    @property
    def kind(self) -> ErrorKind:
        """The table's row for this code."""
        return KINDS[self.code]

    @property
    def status(self) -> int:
        """The HTTP status of this error."""
        return self.kind.status

    @property
    def is_retryable(self) -> bool:
        """True unless clients must not retry automatically."""
        return NO_RETRY_HEADER not in self.headers

    def copy(self) -> GatewayError:
        """Return an equal error to raise, so that a stored one does not collect the frames of every raise."""
        copied = GatewayError(self.code, self.message, param=self.param, headers=self.headers, details=self.details)
        copied.reason = self.reason
        return copied

    def to_envelope(self) -> dict[str, Any]:
        """Return OpenAI's error envelope; all four keys are always present."""
        inner = {"message": self.message, "type": self.kind.type, "param": self.param, "code": self.code}
        return {"error": inner}


def clear_traceback(error: BaseException) -> None:
    """Drop the frames of `error` and the errors it was raised from.

    Frames keep their local variables alive, request bodies among them: as long as the error is stored, or, in a
    reference cycle, until the next garbage collection.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


def internal_error() -> GatewayError:
    """Return the error for a defect; the log has the details under the request id."""
    return GatewayError("internal_error", "The gateway failed to handle this request. Its log has the details.")
