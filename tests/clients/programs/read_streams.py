"""Reads streams: called with a gateway's address, a kind and a count, it prints the events of each stream as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator

from openclaw_client import AuthenticatedClient
from openclaw_client.api.models import list_models
from openclaw_client.events import ResponseEvent, RunEvent
from openclaw_client.models import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ErrorEnvelope,
    FunctionDefinition,
    ResponseRequest,
    StreamOptions,
    Tool,
    UserMessage,
)
from openclaw_client.streams import (
    GatewayError,
    achat_stream,
    aresponse_events,
    arun_events,
    chat_stream,
    response_events,
    run_events,
)

kind = sys.argv[2]
AnyEvent = ChatCompletionChunk | ResponseEvent | RunEvent


def connect() -> AuthenticatedClient:
    return AuthenticatedClient(base_url=sys.argv[1], token="a-token-for-tests")


def question() -> ChatCompletionRequest:
    return ChatCompletionRequest(
        messages=[UserMessage(role="user", content="hi")],
        tools=[Tool(type_="function", function=FunctionDefinition(name=name)) for name in ("weather", "time")],
        seed=2**53 + 1,
        stream_options=StreamOptions(include_usage=True),
    )


def open_stream() -> Iterator[AnyEvent]:
    if kind == "chat":
        return chat_stream(connect(), question(), {"x-openclaw-events": "reasoning"})
    if kind == "response":
        return response_events(connect(), ResponseRequest(input_="hi"))
    return run_events(connect(), "one", after=7)


def open_asynchronous_stream() -> AsyncIterator[AnyEvent]:
    if kind == "async-chat":
        return achat_stream(connect(), question(), {"x-openclaw-events": "reasoning"})
    if kind == "async-response":
        return aresponse_events(connect(), ResponseRequest(input_="hi"))
    return arun_events(connect(), "one", after=7)


async def read_asynchronously(events: list[object]) -> None:
    async for event in open_asynchronous_stream():
        events.append(event.to_dict())  # noqa: PERF401 -- what comes before an error counts


def read(events: list[object]) -> None:
    if kind == "operation":
        answer = list_models.sync(client=connect())
        if isinstance(answer, ErrorEnvelope):
            raise GatewayError(None, answer.error)
    elif kind.startswith("async-"):
        asyncio.run(read_asynchronously(events))
    else:
        events.extend(event.to_dict() for event in open_stream())


for _ in range(int(sys.argv[3])):
    events: list[object] = []
    error = None
    try:
        read(events)
    except GatewayError as failed:
        error = {"status": failed.status, **failed.error.to_dict()}
    print(json.dumps({"events": events, "error": error}))
