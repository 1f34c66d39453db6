"""The SDK's transports to an MCP server, made tolerant of single faults of a server."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from service.core.messages import to_unicode
from service.core.processes.launcher import launched
from service.tools.mcp.sandbox import confine

#: The maximum size of an HTTP message. Messages over stdio are limited only by this process's memory limit.
MAX_EVENT_BYTES = 64 * 1024 * 1024

_MAX_MEDIA_TYPE_CHARS = 80
_MAX_HTTP_ERRORS = 256
_MAX_ERROR_BYTES = 64 * 1024
_SESSION_HEADER = "mcp-session-id"
_NOT_FOUND, _BAD_REQUEST = 404, 400
#: Codes of JSON-RPC for a fault of the request itself: an unknown method, invalid parameters.
_REQUEST_FAULTS = (-32601, -32602)
_REFUSES_SESSION = re.compile(
    r"(no valid|invalid|unknown|expired|missing|no such|not? found)\W[^.]{0,20}\bsession"
    r"|\bsession\b[^.]{0,60}(not (found|valid|initiali[sz]ed|exist)|no longer|does ?n[o']t exist|invalid|unknown"
    r"|expired|terminated|closed|required)|\bserver not initiali[sz]ed",
    re.IGNORECASE,
)

#: Begins the data of the error response to a request that the server did not process, because it had forgotten the
#: session; the request's method follows.
FORGOTTEN_SESSION = "openclaw: session forgotten: "


class HttpErrors:
    """HTTP errors by request id, because the SDK reports only an "error response" without details.

    `session_lost` is set once the server refused a request because of its session.
    """

    def __init__(self) -> None:
        self.session_lost = False
        self._reasons: dict[Any, str] = {}
        self._forgotten: dict[Any, Any] = {}

    async def record(self, response: Any) -> None:
        """Record the reason of an unsuccessful `response`. A hook of the SDK's HTTP client."""
        if response.is_success or response.request.method != "POST":
            return
        media_type = response.headers.get("content-type", "")[:_MAX_MEDIA_TYPE_CHARS]
        reason = f"HTTP {response.status_code} {response.reason_phrase}".strip()
        with suppress(ValueError, AttributeError, KeyError):  # the body is not a request, so no caller waits for it
            request = json.loads(response.request.content)
            number = request.get("id")
            self._reasons[number] = f"{reason}, {media_type}" if media_type else reason
            if await _refuses_session(response):
                self._forgotten[number] = request["method"]
        if len(self._reasons) > _MAX_HTTP_ERRORS:
            unused = next(iter(self._reasons))
            del self._reasons[unused]
            self._forgotten.pop(unused, None)

    def annotate(self, message: Any) -> None:
        """Add the HTTP reason, and the loss of the session, to `message` if it is the response of such a request."""
        error = getattr(message, "error", None)
        if error is None:
            return
        if reason := self._reasons.pop(message.id, ""):
            error.message = f"{error.message} ({reason})"
        if method := self._forgotten.pop(message.id, None):
            self.session_lost = True
            error.data = f"{FORGOTTEN_SESSION}{method}"


async def _continue_trace(request: Any) -> None:
    """Repeat the trace context of a message in the headers of its HTTP `request`. A hook of the SDK's HTTP client."""
    if b'"traceparent"' not in request.content:
        return
    with suppress(ValueError, LookupError, TypeError):  # the word is in an argument
        meta = json.loads(request.content)["params"]["_meta"]
        request.headers.update({name: meta[name] for name in ("traceparent", "tracestate") if name in meta})


async def _refuses_session(response: Any) -> bool:
    """True if `response` says that the session of its request is unknown: with status 404, or in words with 400.

    Servers differ in the body of a 404, so that its words do not matter.
    """
    if _SESSION_HEADER not in response.request.headers or response.status_code not in (_NOT_FOUND, _BAD_REQUEST):
        return False
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        return bool(response.status_code == _NOT_FOUND)
    body = (await response.aread())[:_MAX_ERROR_BYTES]
    if _error_code(body) in _REQUEST_FAULTS:
        return False
    return response.status_code == _NOT_FOUND or bool(_REFUSES_SESSION.search(body.decode(errors="replace")))


def _error_code(body: bytes) -> Any:
    try:
        return json.loads(body)["error"]["code"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def open_transport(
    settings: dict[str, Any], http_errors: HttpErrors, words: Sequence[str], variables: Mapping[str, str]
) -> Any:
    """Return the SDK's transport for `settings`, not entered yet. Raises `FileNotFoundError` for a missing command.

    A command runs with `words` before it, and with `variables` in addition.
    """
    _accept_invalid_unicode()
    if settings.get("url"):
        # The SDK is optional: import it late, so that its absence is reported to the gateway.
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415
        from mcp.shared._httpx_utils import create_mcp_http_client  # noqa: PLC0415

        client = create_mcp_http_client(headers=settings["headers"])
        client.event_hooks = {"request": [_continue_trace], "response": [http_errors.record]}
        return streamable_http_client(settings["url"], http_client=client, max_sse_event_size=MAX_EVENT_BYTES)
    from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: PLC0415

    path = shutil.which(settings["command"], path=settings["env"].get("PATH"))
    if path is None:
        raise FileNotFoundError(f"its command {settings['command']} is not an executable file")
    # The SDK starts the server in a new session; the launcher ties its life to this process.
    command, *args = launched([*words, path, *settings["args"]], report=True)
    server = StdioServerParameters(
        command=command,
        args=args,
        env={**settings["env"], **variables},
        cwd=settings["cwd"],
        encoding_error_handler="replace",
    )
    return stdio_client(server, errlog=sys.stderr)


def _accept_invalid_unicode() -> None:
    """Make the SDK parse messages with lone surrogates and invalid UTF-8 as if they had U+FFFD there.

    It would drop such a message, and the call would wait for its result in vain.
    """
    from mcp_types import jsonrpc_message_adapter as adapter  # noqa: PLC0415

    validate_json = adapter.validate_json

    def validate_repaired(data: str | bytes, **options: Any) -> Any:
        try:
            return validate_json(data, **options)
        except ValueError:
            repaired = _replace_invalid_unicode(data)
            if repaired is None:
                raise
            return validate_json(repaired, **options)

    # All transports share this object. The process has one connection, so this happens once.
    adapter.validate_json = validate_repaired  # type: ignore[method-assign, assignment]


def _replace_invalid_unicode(data: str | bytes) -> str | None:
    text = data if isinstance(data, str) else data.decode(errors="replace")
    try:
        return to_unicode(json.dumps(json.loads(text), ensure_ascii=False))
    except (ValueError, RecursionError):
        return None


class _LenientStream:
    """A stream of the server's messages with repaired listings: one invalid tool must not fail all others."""

    def __init__(self, stream: Any, ended: asyncio.Event, http_errors: HttpErrors) -> None:
        self._stream = stream
        self._ended = ended
        self._http_errors = http_errors
        self._reported: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> Any:
        self._ended.set()  # the SDK leaves the stream at its end
        return await self._stream.__aexit__(*exc_info)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        item = await self._stream.__anext__()
        message = getattr(item, "message", None)
        self._http_errors.annotate(message)
        result = getattr(message, "result", None)
        if isinstance(result, dict) and isinstance(result.get("tools"), list):
            result["tools"] = [tool for tool in result["tools"] if _repair_tool(tool, self._reported)]
        return item


def _repair_tool(tool: Any, reported: set[str]) -> bool:
    """Add a missing `"type": "object"` to the schema; return whether the tool is usable, and log once if not.

    The output schema is dropped, because the SDK would reject a non-conforming result of a call that took place.
    """
    schema = tool.get("inputSchema") if isinstance(tool, dict) else None
    if schema is not None:
        tool.pop("outputSchema", None)
    if isinstance(schema, dict) and schema.setdefault("type", "object") == "object":
        return True
    name = tool.get("name") if isinstance(tool, dict) else None
    if repr(name) not in reported:
        logging.getLogger("openclaw.tools").warning("The tool %r is omitted: its arguments are not an object", name)
    reported.add(repr(name))
    return False


@asynccontextmanager
async def open_lenient(
    settings: dict[str, Any], ended: asyncio.Event, http_errors: HttpErrors
) -> AsyncIterator[tuple[Any, Any]]:
    """Open both streams to the server of `settings`; `ended` is set at the end of its messages."""
    with confine(settings) as (words, variables):
        async with open_transport(settings, http_errors, words, variables) as (read_stream, write_stream):
            yield _LenientStream(read_stream, ended, http_errors), write_stream
