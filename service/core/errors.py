"""The one error a caller can act on, and the one table that says how each kind of it is told.

Anything that is not a `GatewayError` is a defect: it is logged with its traceback and told as `internal_error`,
never with its own text.
"""

from __future__ import annotations

from typing import Any

from service.core.dataclass import record


@record
class ErrorKind:
    """How one error code is told at the doors.

    `status` is the HTTP status, `type` the coarse family OpenAI's SDKs know. `rpc` is the WebSocket protocol's coarse
    code and `detail` its fine one, where that is not simply the code in capitals. What is `lasting` must not be asked
    again by a client's own motion: it is no use, or not wanted.
    """

    status: int
    type: str
    rpc: str = "UNAVAILABLE"
    detail: str | None = None
    lasting: bool = False


_REQUEST, _AUTH, _PERMISSION = "invalid_request_error", "authentication_error", "permission_error"
_LIMIT, _API, _UNAVAILABLE = "rate_limit_error", "api_error", "service_unavailable_error"
_INVALID, _FORBIDDEN = "INVALID_REQUEST", "FORBIDDEN"

#: Every code that can leave the Gateway. A code keeps its meaning for ever; its message may improve.
KINDS: dict[str, ErrorKind] = {
    # what the caller wrote
    "malformed_request": ErrorKind(400, _REQUEST, _INVALID),
    "invalid_json": ErrorKind(400, _REQUEST, _INVALID),
    "invalid_value": ErrorKind(400, _REQUEST, _INVALID),
    "invalid_type": ErrorKind(400, _REQUEST, _INVALID),
    "missing_required_parameter": ErrorKind(400, _REQUEST, _INVALID),
    "unsupported_parameter": ErrorKind(400, _REQUEST, _INVALID),
    "provider_rejected_request": ErrorKind(400, _REQUEST, _INVALID),
    "context_length_exceeded": ErrorKind(400, _REQUEST, _INVALID),
    "request_timeout": ErrorKind(408, _REQUEST, _INVALID),
    "session_busy": ErrorKind(409, _REQUEST),
    "idempotency_key_reused": ErrorKind(409, _REQUEST, _INVALID, lasting=True),
    "run_ended": ErrorKind(409, _REQUEST, _INVALID, lasting=True),
    "request_too_large": ErrorKind(413, _REQUEST, _INVALID),
    "uri_too_long": ErrorKind(414, _REQUEST, _INVALID),
    "unsupported_media_type": ErrorKind(415, _REQUEST, _INVALID),
    "protocol_mismatch": ErrorKind(400, _REQUEST, _INVALID),
    "headers_too_large": ErrorKind(431, _REQUEST, _INVALID),
    # who the caller is
    "missing_credentials": ErrorKind(401, _AUTH, _INVALID, "AUTH_TOKEN_MISSING"),
    "invalid_api_key": ErrorKind(401, _AUTH, _INVALID, "AUTH_TOKEN_MISMATCH"),
    "too_many_failed_attempts": ErrorKind(429, _LIMIT, _INVALID, "AUTH_RATE_LIMITED"),
    "untrusted_proxy_headers": ErrorKind(403, _PERMISSION, _FORBIDDEN),
    "host_not_allowed": ErrorKind(403, _PERMISSION, _FORBIDDEN),
    "origin_not_allowed": ErrorKind(403, _PERMISSION, _FORBIDDEN),
    "missing_scope": ErrorKind(403, _PERMISSION, _FORBIDDEN),
    # what does not exist
    "not_found": ErrorKind(404, _REQUEST, _INVALID),
    "run_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "session_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "model_not_found": ErrorKind(404, _REQUEST, _INVALID),
    "endpoint_disabled": ErrorKind(404, _REQUEST, _INVALID),
    "method_not_allowed": ErrorKind(405, _REQUEST, _INVALID),
    "unknown_method": ErrorKind(404, _REQUEST, _INVALID),
    # what went wrong behind the Gateway
    "internal_error": ErrorKind(500, _API),
    "provider_error": ErrorKind(502, _API),
    "provider_authentication_failed": ErrorKind(502, _API, lasting=True),
    "tool_choice_not_met": ErrorKind(502, _API),
    "rate_limit_exceeded": ErrorKind(429, _LIMIT),
    "too_many_runs": ErrorKind(429, _LIMIT),
    "too_many_requests": ErrorKind(429, _LIMIT),
    "too_many_connections": ErrorKind(503, _UNAVAILABLE),
    "provider_unavailable": ErrorKind(503, _UNAVAILABLE),
    "model_not_installed": ErrorKind(503, _UNAVAILABLE, lasting=True),
    "not_ready": ErrorKind(503, _UNAVAILABLE),
    "shutting_down": ErrorKind(503, _UNAVAILABLE),
    "provider_timeout": ErrorKind(504, _API),
    "run_timeout": ErrorKind(504, _API),
    "run_failed": ErrorKind(502, _API),
    "run_aborted": ErrorKind(503, _UNAVAILABLE, lasting=True),
    "run_interrupted": ErrorKind(503, _UNAVAILABLE),
    "session_lost": ErrorKind(503, _UNAVAILABLE),
    "storage_unavailable": ErrorKind(503, _UNAVAILABLE),
}


#: The header by which OpenAI's SDKs learn that they are not to send a request again.
NO_RETRY_HEADER = "x-should-retry"
NO_RETRY = {NO_RETRY_HEADER: "false"}


class GatewayError(Exception):
    """Something the caller, or whoever runs the Gateway, can act on.

    `message` is written for people: what is wrong and what would be right. `param` names the offending field as the
    caller wrote it (`messages[2].content`) or the header. `headers` are extra response headers the contract gives to
    the code's status (`Retry-After`, `Allow`, `WWW-Authenticate`), `details` further facts for the WebSocket's error.
    """

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
        self.headers = {**(NO_RETRY if KINDS[code].lasting else {}), **(headers or {})}
        self.details = details or {}

    @property
    def kind(self) -> ErrorKind:
        """The row of the table for this code."""
        return KINDS[self.code]

    @property
    def status(self) -> int:
        """The HTTP status this error is told with."""
        return self.kind.status

    @property
    def is_lasting(self) -> bool:
        """Whether it is no use, or not wanted, to ask again."""
        return NO_RETRY_HEADER in self.headers

    def renewed(self) -> GatewayError:
        """The same, to be raised anew: one that is kept must not gather the frames of all who are told."""
        return GatewayError(self.code, self.message, param=self.param, headers=self.headers, details=self.details)

    def to_envelope(self) -> dict[str, Any]:
        """OpenAI's error envelope, all four keys always present."""
        inner = {"message": self.message, "type": self.kind.type, "param": self.param, "code": self.code}
        return {"error": inner}


def forget_frames(error: BaseException) -> None:
    """Let go of the frames that `error` came through and of the errors it came from.

    They hold all that was at hand there, bodies of requests too: for as long as the error is kept, or, where one of
    them holds the error in turn, until the garbage collector comes by.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


def internal_error() -> GatewayError:
    """What a caller is told about a defect; the details are in the log under the request's id."""
    return GatewayError("internal_error", "The gateway failed to handle this request. Its log has the details.")
