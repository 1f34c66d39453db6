"""Streams of a gateway that go on where they were when a connection breaks.

Each stream is an iterator of events, synchronous or, with the prefix `a`, asynchronous. `GatewayError` is raised for an
error status, and for an error inside a stream. A connection that breaks is opened again behind the last event, up to
`ATTEMPTS` times in a row, also where the answer is that the gateway, or a proxy before it, is busy or gone for a while;
nothing is missed, and nothing comes twice. Events that this client cannot read because the
gateway is newer, of another type or with another value of an enumeration, are left out. If the end of a run or a
response is one of them, `TypeError` is raised.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from .client import AuthenticatedClient, Client
from .envelopes import to_envelope
from .events import RESPONSE_EVENTS, RUN_EVENTS, ResponseEvent, RunEvent
from .models import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ErrorDetails,
    ErrorEnvelope,
    ResponseRequest,
    UserMessage,
)

ATTEMPTS = 5
_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0
_TEMPORARY = {429, 502, 503, 504}
_LINE_END = re.compile(rb"\r\n?|\n")
_END = "[DONE]"
_LAST_EVENTS = {"run.ended", "response.completed", "response.incomplete", "response.failed"}

Event = TypeVar("Event")
AnyClient = AuthenticatedClient | Client


class GatewayError(Exception):
    """An error that the gateway has answered with.

    `status` is the HTTP status, or None if the error came inside a stream; `error` has the contract's `code`. A request
    may be sent again after `retry_after` seconds, where the gateway says so.
    """

    def __init__(self, status: int | None, error: ErrorDetails, retry_after: int = 0) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.retry_after = retry_after


def ask(question: str) -> ChatCompletionRequest:
    """Return the request that asks the default agent a question."""
    return ChatCompletionRequest(messages=[UserMessage(role="user", content=question)])


def chat_stream(
    client: AnyClient, body: ChatCompletionRequest, headers: Mapping[str, str] | None = None
) -> Iterator[ChatCompletionChunk]:
    """Run an agent on a conversation, and yield the chunks of its answer.

    The run goes on while no client is connected (`x-openclaw-on-disconnect: continue`).
    """
    return _read(client, _ChatStream(body, headers))


def achat_stream(
    client: AnyClient, body: ChatCompletionRequest, headers: Mapping[str, str] | None = None
) -> AsyncIterator[ChatCompletionChunk]:
    """`chat_stream`, asynchronous."""
    return _aread(client, _ChatStream(body, headers))


def run_events(client: AnyClient, run_id: str, after: int = 0) -> Iterator[RunEvent]:
    """Yield the events of a run behind the number `after`, until `run.ended`; `type_` has the kind of each."""
    return _read(client, _RunStream(run_id, after))


def arun_events(client: AnyClient, run_id: str, after: int = 0) -> AsyncIterator[RunEvent]:
    """`run_events`, asynchronous."""
    return _aread(client, _RunStream(run_id, after))


def response_events(
    client: AnyClient, body: ResponseRequest, headers: Mapping[str, str] | None = None
) -> Iterator[ResponseEvent]:
    """Create a response in the background, and yield its events; `type_` has the kind of each."""
    return _read(client, _ResponseStream(body, headers))


def aresponse_events(
    client: AnyClient, body: ResponseRequest, headers: Mapping[str, str] | None = None
) -> AsyncIterator[ResponseEvent]:
    """`response_events`, asynchronous."""
    return _aread(client, _ResponseStream(body, headers))


class _Stream(ABC, Generic[Event]):
    """A stream across its connections: what to request, and what the lines of the answer say."""

    def __init__(self) -> None:
        self.ended = False
        self.resumable = False
        self.failures = 0
        self._rest = b""  # of a line
        self._after_return = False
        self._lines: dict[str, str] = {}

    @abstractmethod
    def request(self) -> dict[str, Any]:
        """Return the arguments of `httpx.Client.stream`."""

    def opened(self, response: httpx.Response) -> None:
        """Read the head of an answer; raises `GatewayError` for an error."""
        self._rest, self._after_return, self._lines = b"", False, {}
        if response.status_code == httpx.codes.NO_CONTENT:
            self.ended = True
        elif response.status_code != httpx.codes.OK:
            seconds = response.headers.get("retry-after", "")
            retry_after = int(seconds) if seconds.isdecimal() else 0
            raise GatewayError(response.status_code, to_envelope(response).error, retry_after)

    def read(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes of the answer, and yield the events that they complete."""
        if self._after_return:
            data = data.removeprefix(b"\n")
        self._after_return = data.endswith(b"\r")
        lines = _LINE_END.split(data)
        lines[0] = self._rest + lines[0]
        self._rest = lines.pop()
        for line in lines:
            event = self._read_line(line.decode(errors="replace"))
            if event is not None:
                self.failures = 0
                yield event

    def _read_line(self, line: str) -> Event | None:
        if line:
            name, _, value = line.partition(":")
            if name:
                self._lines[name] = value.removeprefix(" ")
            return None
        fields, self._lines = self._lines, {}
        data = fields.get("data")
        if data is None:
            return None
        if data == _END:
            self.ended = True
            return None
        return self.decode(json.loads(data), fields)

    @abstractmethod
    def decode(self, data: dict[str, Any], fields: Mapping[str, str]) -> Event | None:
        """Return an event unless it has come before or is of a newer gateway, and remember where it was."""

    def failed(self, error: httpx.TransportError | GatewayError | None) -> float:
        """Return how long to wait before the next connection; raises if there may be none."""
        self.failures += 1
        is_final = isinstance(error, GatewayError) and error.status not in _TEMPORARY
        if is_final or not self.resumable or self.failures > ATTEMPTS:
            raise error or httpx.RemoteProtocolError("The stream ended before its end.")
        wanted = error.retry_after if isinstance(error, GatewayError) else 0
        return max(_PAUSE_SECONDS * 2.0 ** (self.failures - 1), min(wanted, _LONGEST_PAUSE_SECONDS))


class _ChatProgress:
    """What has come of a chat stream across its connections.

    A resumed stream begins with the role. It repeats what has no number behind it: the beginning of a call, in other
    pieces, and the usage.
    """

    def __init__(self) -> None:
        self.after = 0
        self._number = 0
        self._has_role = False
        self._calls: dict[int, int] = {}  # characters of their arguments
        self._repeated: dict[int, int] = {}  # of these, what this connection has brought

    def connected(self) -> None:
        """Begin with the next connection."""
        self._repeated = {}

    def is_new(self, chunk: dict[str, Any]) -> bool:
        """Cut what has come before from a chunk, and return whether there is more in it."""
        number = (chunk.get("openclaw") or {}).get("sequence_number", 0)
        if 0 < number <= self._number:
            return False
        self._number = max(number, self._number)
        has_ended = any(choice["finish_reason"] for choice in chunk["choices"])
        if number > 0 or not chunk["choices"]:
            self.after = self._number - has_ended  # the usage comes behind the end, without a number
        is_new = True
        for choice in chunk["choices"]:
            if "role" in choice["delta"]:
                is_new, self._has_role = not self._has_role, True
            for call in choice["delta"].get("tool_calls", ()):
                is_new = self._cut(call) or number > 0
        return is_new

    def _cut(self, call: dict[str, Any]) -> bool:
        index, text = call["index"], call["function"]["arguments"]
        known, begin = self._calls.get(index), self._repeated.get(index, 0)
        self._repeated[index] = begin + len(text)
        self._calls[index] = max(begin + len(text), known or 0)
        call["function"]["arguments"] = text[max((known or 0) - begin, 0) :]
        return known is None or bool(call["function"]["arguments"])


class _ChatStream(_Stream[ChatCompletionChunk]):
    def __init__(self, body: ChatCompletionRequest, headers: Mapping[str, str] | None) -> None:
        super().__init__()
        self._body = {**body.to_dict(), "stream": True}
        self._headers = {"x-openclaw-on-disconnect": "continue", **(headers or {})}
        self._run_id = ""
        self._progress = _ChatProgress()

    def request(self) -> dict[str, Any]:
        if not self._run_id:
            return {"method": "POST", "url": "/v1/chat/completions", "json": self._body, "headers": self._headers}
        usage = bool((self._body.get("stream_options") or {}).get("include_usage"))
        params = {"after": self._progress.after, "include_usage": usage}
        url = f"/v1/runs/{quote(self._run_id)}/chat-stream"
        return {"method": "GET", "url": url, "params": params, "headers": self._headers}

    def opened(self, response: httpx.Response) -> None:
        super().opened(response)
        self._progress.connected()
        self._run_id = self._run_id or response.headers.get("x-openclaw-run-id", "")
        self.resumable = bool(self._run_id)

    def decode(self, data: dict[str, Any], fields: Mapping[str, str]) -> ChatCompletionChunk | None:
        if "error" in data:
            raise GatewayError(None, ErrorEnvelope.from_dict(data).error)
        return ChatCompletionChunk.from_dict(data) if self._progress.is_new(data) else None


class _RunStream(_Stream[RunEvent]):
    def __init__(self, run_id: str, after: int) -> None:
        super().__init__()
        self.resumable = True
        self._run_id = run_id
        self._after = str(after)

    def request(self) -> dict[str, Any]:
        headers = {"Last-Event-ID": self._after}
        return {"method": "GET", "url": f"/v1/runs/{quote(self._run_id)}/events", "headers": headers}

    def decode(self, data: dict[str, Any], fields: Mapping[str, str]) -> RunEvent | None:
        self._after = fields["id"]
        self.ended = fields["event"] == "run.ended"
        known = RUN_EVENTS.get(data["type"])
        if known is None:
            return None
        from_dict: Callable[[dict[str, Any]], RunEvent] = known.from_dict
        return _parse(from_dict, data)


class _ResponseStream(_Stream[ResponseEvent]):
    def __init__(self, body: ResponseRequest, headers: Mapping[str, str] | None) -> None:
        super().__init__()
        self._body = {**body.to_dict(), "stream": True, "background": True}
        self._headers = dict(headers or {})
        self._id = ""
        self._behind: dict[str, int] = {}

    def request(self) -> dict[str, Any]:
        if not self._id:
            return {"method": "POST", "url": "/v1/responses", "json": self._body, "headers": self._headers}
        params = {"stream": True, **self._behind}
        url = f"/v1/responses/{quote(self._id)}"
        return {"method": "GET", "url": url, "params": params, "headers": self._headers}

    def opened(self, response: httpx.Response) -> None:
        super().opened(response)
        self._id = self._id or response.headers.get("x-openclaw-run-id", "").replace("chatcmpl_", "resp_", 1)
        self.resumable = bool(self._id)

    def decode(self, data: dict[str, Any], fields: Mapping[str, str]) -> ResponseEvent | None:
        self._behind = {"starting_after": data["sequence_number"]}
        known = RESPONSE_EVENTS.get(data["type"])
        if known is None:
            return None
        from_dict: Callable[[dict[str, Any]], ResponseEvent] = known.from_dict
        return _parse(from_dict, data)


def _parse(from_dict: Callable[[dict[str, Any]], Event], data: dict[str, Any]) -> Event | None:
    """Return an event, or `None` if it has a value that this client lacks; raises `TypeError` if it is the last one."""
    try:
        return from_dict(data)
    except (TypeError, ValueError):
        if data["type"] in _LAST_EVENTS:
            raise
        return None


def _read(client: AnyClient, stream: _Stream[Event]) -> Iterator[Event]:
    while not stream.ended:
        error: httpx.TransportError | GatewayError | None = None
        try:
            with client.get_httpx_client().stream(**stream.request()) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                stream.opened(response)
                for data in response.iter_bytes():
                    yield from stream.read(data)
        except (httpx.TransportError, GatewayError) as broken:
            error = broken
        if not stream.ended:
            time.sleep(stream.failed(error))


async def _aread(client: AnyClient, stream: _Stream[Event]) -> AsyncIterator[Event]:
    while not stream.ended:
        error: httpx.TransportError | GatewayError | None = None
        try:
            async with client.get_async_httpx_client().stream(**stream.request()) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                stream.opened(response)
                async for data in response.aiter_bytes():
                    for event in stream.read(data):
                        yield event
        except (httpx.TransportError, GatewayError) as broken:
            error = broken
        if not stream.ended:
            await asyncio.sleep(stream.failed(error))
