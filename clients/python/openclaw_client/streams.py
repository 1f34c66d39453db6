"""Streams of a gateway that go on where they were when a connection breaks.

Each stream is an iterator of events, synchronous or, with the prefix `a`, asynchronous. `GatewayError` is raised for an
error status, and for an error inside a stream. A connection that breaks is opened again behind the last event, up to
`ATTEMPTS` times in a row; nothing is missed, and nothing comes twice. Events that this client cannot read because the
gateway is newer, of another type or with another value of an enumeration, are left out. If the end of a run or a
response is one of them, `TypeError` is raised.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from .client import AuthenticatedClient, Client
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
_END = "[DONE]"
_LAST_EVENTS = {"run.ended", "response.completed", "response.incomplete", "response.failed"}

Event = TypeVar("Event")
AnyClient = AuthenticatedClient | Client


class GatewayError(Exception):
    """An error that the gateway has answered with.

    `status` is the HTTP status, or None if the error came inside a stream; `error` has the contract's `code`.
    """

    def __init__(self, status: int | None, error: ErrorDetails) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error


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
        self._lines: dict[str, str] = {}

    @abstractmethod
    def request(self) -> dict[str, Any]:
        """Return the arguments of `httpx.Client.stream`."""

    def opened(self, response: httpx.Response) -> None:
        """Read the head of an answer; raises `GatewayError` for an error."""
        if response.status_code != httpx.codes.OK:
            raise GatewayError(response.status_code, ErrorEnvelope.from_dict(response.json()).error)

    def read(self, line: str) -> Event | None:
        """Take one line of the answer, and return the event that it completes."""
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
        self.failures = 0
        return self.decode(json.loads(data), fields)

    @abstractmethod
    def decode(self, data: dict[str, Any], fields: Mapping[str, str]) -> Event | None:
        """Return an event unless it is of a newer gateway, and remember where it was."""

    def failed(self, error: httpx.TransportError | None) -> float:
        """Return how long to wait before the next connection; raises if there may be none."""
        self._lines = {}
        self.failures += 1
        if not self.resumable or self.failures > ATTEMPTS:
            raise error or httpx.RemoteProtocolError("The stream ended before its end.")
        return float(_PAUSE_SECONDS * 2 ** (self.failures - 1))


class _ChatStream(_Stream[ChatCompletionChunk]):
    def __init__(self, body: ChatCompletionRequest, headers: Mapping[str, str] | None) -> None:
        super().__init__()
        self._body = {**body.to_dict(), "stream": True}
        self._headers = {"x-openclaw-on-disconnect": "continue", **(headers or {})}
        self._run_id = ""
        self._after = 0

    def request(self) -> dict[str, Any]:
        if not self._run_id:
            return {"method": "POST", "url": "/v1/chat/completions", "json": self._body, "headers": self._headers}
        usage = bool((self._body.get("stream_options") or {}).get("include_usage"))
        params = {"after": self._after, "include_usage": usage}
        return {"method": "GET", "url": f"/v1/runs/{quote(self._run_id)}/chat-stream", "params": params}

    def opened(self, response: httpx.Response) -> None:
        super().opened(response)
        self._run_id = self._run_id or response.headers["x-openclaw-run-id"]
        self.resumable = True

    def decode(self, data: dict[str, Any], fields: Mapping[str, str]) -> ChatCompletionChunk:
        if "error" in data:
            raise GatewayError(None, ErrorEnvelope.from_dict(data).error)
        self._after = (data.get("openclaw") or {}).get("sequence_number", self._after)
        return ChatCompletionChunk.from_dict(data)


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
        return {"method": "GET", "url": f"/v1/responses/{quote(self._id)}", "params": params}

    def opened(self, response: httpx.Response) -> None:
        super().opened(response)
        self._id = self._id or response.headers["x-openclaw-run-id"].replace("chatcmpl_", "resp_", 1)
        self.resumable = True

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
        error = None
        try:
            with client.get_httpx_client().stream(**stream.request()) as response:
                if response.is_error:
                    response.read()
                stream.opened(response)
                for line in response.iter_lines():
                    event = stream.read(line)
                    if event is not None:
                        yield event
        except httpx.TransportError as broken:
            error = broken
        if not stream.ended:
            time.sleep(stream.failed(error))


async def _aread(client: AnyClient, stream: _Stream[Event]) -> AsyncIterator[Event]:
    while not stream.ended:
        error = None
        try:
            async with client.get_async_httpx_client().stream(**stream.request()) as response:
                if response.is_error:
                    await response.aread()
                stream.opened(response)
                async for line in response.aiter_lines():
                    event = stream.read(line)
                    if event is not None:
                        yield event
        except httpx.TransportError as broken:
            error = broken
        if not stream.ended:
            await asyncio.sleep(stream.failed(error))
