"""A gateway whose model thinks, uses a tool of the agent's, answers and calls a function, for readers of streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from support.live import LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream

TEXT = "Trời nắng ở Hà Nội. 🌞"
ARGUMENTS = {"city": "Hà Nội", "days": [1, 2]}
#: What every client has to find in the stream, whatever else it shows.
SAID = {"text": TEXT, "calls": [["weather", ARGUMENTS]]}
#: The header of requests that show everything, and of those that show nothing beside text and calls.
EVENTS = ("reasoning,tools", "none")

_COUNTS = {"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}}
_READ = {"index": 0, "id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path":"x"}'}}


def _answer(exchange: Exchange) -> None:
    exchange.head()
    for thought in ("Let me ", "see.\n\n<b>"):
        exchange.event({"reasoning_content": thought})
    if not any(message["role"] == "tool" for message in exchange.body["messages"]):
        exchange.event({"tool_calls": [_READ]})
        exchange.end("tool_calls", usage=_COUNTS)
        return
    for word in (TEXT[:5], TEXT[5:12], TEXT[12:]):
        exchange.event({"content": word})
    opening = {"index": 0, "id": "c2", "type": "function", "function": {"name": "weather", "arguments": ""}}
    exchange.event({"tool_calls": [opening]})
    arguments = orjson.dumps(ARGUMENTS).decode()
    for place in range(0, len(arguments), 6):
        exchange.event({"tool_calls": [{"index": 0, "function": {"arguments": arguments[place : place + 6]}}]})
        exchange.wait(0.01)
    exchange.end("tool_calls", usage=_COUNTS)


@contextmanager
def showing_gateway(directory: Path) -> Iterator[LiveGateway]:
    """Start the gateway, and the model behind it."""
    agent: dict[str, Any] = {"id": "main", "workspace": str(directory), "tools": {"profile": "full"}}
    with Upstream() as upstream:
        upstream.answers["showing"] = _answer
        config = stubbed_config(upstream.url, "stub/showing", agents=[agent])
        with live_gateway(directory / "gateway", config) as running:
            yield running
