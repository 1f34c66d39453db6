"""Valid and invalid answers of the stub upstream by `model`, in the OpenAI dialect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.upstream import Exchange

WORDS = ("Hello", " from", " the", " upstream", ".")
TEXT = "".join(WORDS)
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}
RETRY_AFTER = "17"


def frame(event: object) -> bytes:
    """One event as it goes over the wire."""
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def stream_bytes() -> bytes:
    """A whole good stream."""
    events = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in WORDS]
    last: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}
    return b"".join(frame(event) for event in [*events, last]) + b"data: [DONE]\n\n"


def refuse(exchange: Exchange, status: int) -> None:
    headers = {"Retry_After": RETRY_AFTER} if status == 429 else {}
    exchange.json(status, {"error": {"message": f"refused with {status}", "code": "x"}}, **headers)


def ok(exchange: Exchange) -> None:
    exchange.head()
    exchange.event({"role": "assistant", "content": ""})
    exchange.words()
    exchange.end()


def ok_unless_reused(exchange: Exchange) -> None:
    """Answer on a new connection only, as if an idle one had just been given up."""
    if exchange.answered:
        exchange.drop()
    else:
        ok(exchange)


def echo(exchange: Exchange) -> None:
    """The request itself is the answer's text, pictures shortened to their number."""
    content = exchange.body["messages"][-1]["content"]
    images = [part for part in content if part["type"] == "image_url"] if isinstance(content, list) else []
    exchange.head()
    exchange.event({"content": f"{len(images)} images" if images else str(content)})
    exchange.end()


def slow(exchange: Exchange) -> None:
    exchange.head()
    exchange.words(pause_seconds=0.1)
    exchange.end()


def split(exchange: Exchange) -> None:
    exchange.head()
    for byte in stream_bytes():
        exchange.send(bytes([byte]))
    exchange.last_chunk()


def crlf(exchange: Exchange) -> None:
    exchange.head()
    exchange.send(b": welcome\r\n\r\nevent: message\r\n" + stream_bytes().replace(b"\n", b"\r\n"))
    exchange.last_chunk()


def drop_before(exchange: Exchange) -> None:
    exchange.drop()


def drop_after(exchange: Exchange) -> None:
    exchange.head()
    exchange.event({"content": WORDS[0]})
    exchange.drop()


def end_quietly(exchange: Exchange) -> None:
    """A body that ends with the connection, in the middle of the answer."""
    exchange.head(connection="close")
    exchange.words()
    exchange.drop()


def no_done(exchange: Exchange) -> None:
    """A finish reason, and then the connection drops."""
    exchange.head()
    exchange.words()
    exchange.event({}, "length")
    exchange.drop()


def no_finish(exchange: Exchange) -> None:
    exchange.head()
    exchange.words()
    exchange.last_chunk()


def only_done(exchange: Exchange) -> None:
    exchange.head()
    exchange.words()
    exchange.end(finish_reason=None)


def odd_finish(exchange: Exchange) -> None:
    exchange.head()
    exchange.words()
    exchange.end("eos_token")


def hang(exchange: Exchange) -> None:
    exchange.wait()


def hang_midway(exchange: Exchange) -> None:
    exchange.head()
    exchange.event({"content": WORDS[0]})
    exchange.wait()


def comments_only(exchange: Exchange) -> None:
    """Signs of life for a minute, and not a word."""
    exchange.head()
    exchange.event({"content": WORDS[0]})
    for _ in range(3000):
        exchange.send(b": still working\n\n")
        exchange.wait(0.02)


def hang_after_done(exchange: Exchange) -> None:
    """Everything is said but the end of the body."""
    exchange.head()
    exchange.send(stream_bytes())
    exchange.wait()


def garbage(exchange: Exchange) -> None:
    exchange.wfile.write(b"\x00\xff this is not HTTP\r\n\r\n")
    exchange.drop()


def garbage_events(exchange: Exchange) -> None:
    exchange.head()
    exchange.send(b'data: {"choices": [7]}\n\n')
    exchange.last_chunk()


def endless_line(exchange: Exchange) -> None:
    exchange.head()
    while not exchange.server.upstream.closing.is_set():
        exchange.send(b"data: " + b"x" * 65536)


def endless_head(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not exchange.server.upstream.closing.is_set():
        exchange.wfile.write(b"x-more: " + b"x" * 1000 + b"\r\n")


def error_event(exchange: Exchange) -> None:
    exchange.head()
    exchange.event({"content": WORDS[0]})
    exchange.send(frame({"error": {"message": "the GPU is on fire", "type": "server_error"}}))
    exchange.last_chunk()


def plain_json(exchange: Exchange) -> None:
    message = {"role": "assistant", "content": TEXT, "tool_calls": None}
    exchange.json(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE})


def tools(exchange: Exchange) -> None:
    """Two calls, their pieces interleaved."""
    exchange.head()
    exchange.event({"content": "Let me see."})
    for index, name in enumerate(("first", "second")):
        start = {"index": index, "id": f"call-{name}", "type": "function", "function": {"name": name, "arguments": ""}}
        exchange.event({"tool_calls": [start]})
    for piece in ('{"city": ', '"Han', 'oi"}'):
        exchange.event({"tool_calls": [{"index": index, "function": {"arguments": piece}} for index in (0, 1)]})
    exchange.end("tool_calls")


def bare_tools(exchange: Exchange) -> None:
    """Two calls without ids, each in one event, and a finish reason that does not mention them."""
    exchange.head()
    calls = [{"index": index, "function": {"name": f"f{index}", "arguments": {"n": index}}} for index in (0, 1)]
    exchange.event({"tool_calls": calls})
    exchange.end("stop")


def tells_key(exchange: Exchange) -> None:
    told = f"the key {exchange.headers['authorization']} may not do this; " + "and so on " * 100
    exchange.json(400, {"error": {"message": told}})


ANSWERS: dict[str, Callable[[Exchange], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(ok, ok_unless_reused, echo, slow, split, crlf, plain_json, tools, bare_tools, odd_finish, only_done, no_done),
        *(drop_before, drop_after, end_quietly, no_finish, hang, hang_midway, hang_after_done, comments_only),
        *(garbage, garbage_events, endless_line, endless_head, error_event, tells_key),
    )
}
