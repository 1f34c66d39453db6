"""Valid and invalid answers of the stub upstream by `model`, in Anthropic's dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from support.upstream_answers import WORDS, drop_before, garbage, hang

if TYPE_CHECKING:
    from support.upstream import Exchange

STARTED = {"input_tokens": 4, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 1}
ENDED = {"output_tokens": 5}

Event = dict[str, Any]


def start() -> Event:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "stub", "content": []}
    return {"type": "message_start", "message": {**message, "stop_reason": None, "usage": STARTED}}


def block(index: int, content: Event, deltas: Iterable[Event]) -> list[Event]:
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(words: Iterable[str] = WORDS, index: int = 0) -> list[Event]:
    deltas = [{"type": "text_delta", "text": word} for word in words]
    return block(index, {"type": "text", "text": ""}, deltas)


def call(index: int, name: str, pieces: Iterable[str]) -> list[Event]:
    content = {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": {}}
    return block(index, content, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces])


def end(stop_reason: str = "end_turn") -> list[Event]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return [{"type": "message_delta", "delta": delta, "usage": ENDED}, {"type": "message_stop"}]


PING: Event = {"type": "ping"}


def error(kind: str, message: str = "the GPU is on fire") -> Event:
    return {"type": "error", "error": {"type": kind, "message": message}}


def frame(event: Event) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def telling(*events: Event) -> Callable[[Exchange], None]:
    """An answer that is these events."""

    def answer(exchange: Exchange) -> None:
        exchange.head()
        for event in events:
            exchange.send(frame(event))
        exchange.last_chunk()

    return answer


def split(exchange: Exchange) -> None:
    exchange.head()
    for byte in b"".join(frame(event) for event in [start(), PING, *text(), *end()]):
        exchange.send(bytes([byte]))
    exchange.last_chunk()


def slow(exchange: Exchange) -> None:
    exchange.head()
    for event in [start(), *text(), *end()]:
        exchange.send(frame(event))
        exchange.wait(0.1)
    exchange.last_chunk()


def drop_after(exchange: Exchange) -> None:
    exchange.head()
    for event in [start(), *text(WORDS[:1])]:
        exchange.send(frame(event))
    exchange.drop()


def no_stop(exchange: Exchange) -> None:
    """A stop reason, and then the connection drops."""
    exchange.head()
    for event in [start(), *text(), end("max_tokens")[0]]:
        exchange.send(frame(event))
    exchange.drop()


def hang_midway(exchange: Exchange) -> None:
    exchange.head()
    for event in [start(), *text(WORDS[:1])]:
        exchange.send(frame(event))
    exchange.wait()


def pings_only(exchange: Exchange) -> None:
    exchange.head()
    exchange.send(frame(start()))
    for _ in range(3000):
        exchange.send(frame(PING))
        exchange.wait(0.02)


THINKING = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    [{"type": "thinking_delta", "thinking": "Hm."}, {"type": "signature_delta", "signature": "c2ln"}],
)
TOOLS = [*text(("Let me see.",)), *call(1, "first", ('{"city": ', '"Hanoi"}')), *call(2, "second", ())]

ANSWERS: dict[str, Callable[[Exchange], None]] = {
    "ok": telling(start(), PING, *text(), *end()),
    "stop-sequence": telling(start(), *text(), *end("stop_sequence")),
    "thinking": telling(start(), *THINKING, *text(index=1), {"type": "new_kind"}, *end()),
    "max-tokens": telling(start(), *text(), *call(1, "cut", ('{"ci',)), *end("max_tokens")),
    "refusal": telling(start(), *text(), *end("refusal")),
    "tools": telling(start(), *TOOLS, *end("tool_use")),
    "no-end": telling(start(), *text()),
    "garbage-events": telling(start(), {"type": "content_block_delta", "index": 0, "delta": 7}),
    **{f"error-{kind}": telling(error(kind)) for kind in ("overloaded_error", "rate_limit_error", "api_error")},
    **{f"error-{kind}": telling(error(kind)) for kind in ("invalid_request_error", "authentication_error")},
    "error-midway": telling(start(), *text(WORDS[:1]), error("overloaded_error")),
    "slow": slow,
    "split": split,
    "garbage": garbage,
    "drop-before": drop_before,
    "drop-after": drop_after,
    "no-stop": no_stop,
    "hang": hang,
    "hang-midway": hang_midway,
    "pings-only": pings_only,
}
