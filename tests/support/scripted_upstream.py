"""A scripted model behind the stub upstream, in both dialects."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import orjson

from support import upstream_answers_anthropic as anthropic
from support.upstream import Exchange


def calls(*named: tuple[str, dict[str, Any]], text: str = "") -> dict[str, Any]:
    """Return the next answer of the model: text, then tool calls."""
    return {"text": text, "calls": [(name, orjson.dumps(arguments).decode()) for name, arguments in named]}


class Play:
    """Each request gets the next line, as `calls` writes them."""

    def __init__(self, *lines: dict[str, Any]) -> None:
        self.lines = list(lines)
        self.lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        with self.lock:
            line = self.lines.pop(0)
        exchange.head()
        if exchange.path.endswith("/messages"):
            _tell_as_anthropic(exchange, line["text"], line["calls"])
        else:
            _tell_as_openai(exchange, line["text"], line["calls"])


def _tell_as_openai(exchange: Exchange, text: str, named: Sequence[tuple[str, str]]) -> None:
    if text:
        exchange.event({"content": text})
    pieces = [
        {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(named)
    ]
    if pieces:
        exchange.event({"tool_calls": pieces})
    exchange.end("tool_calls" if pieces else "stop")


def _tell_as_anthropic(exchange: Exchange, text: str, named: Sequence[tuple[str, str]]) -> None:
    told = anthropic.text([text]) if text else []
    for index, (name, arguments) in enumerate(named, 1):
        told += anthropic.call(index, name, [arguments])
    for event in [anthropic.start(), *told, *anthropic.end("tool_use" if named else "end_turn")]:
        exchange.send(anthropic.frame(event))
    exchange.last_chunk()
