"""Provider responses as bytes and their expected results. Add a row for each new report.

`stream` of the OpenAI dialect and `events` of Anthropic's write ordinary events; numbers are pauses in seconds.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import brotli
from support import upstream_answers_anthropic as anthropic
from support.codings import zstd_compress

from service.core.messages import Role

Pieces = tuple[bytes | float, ...]
Calls = tuple[tuple[str, str], ...]

DONE = b"data: [DONE]\n\n"
OPENAI, ANTHROPIC = "openai", "anthropic"
EVENTS, JSON, TEXT = "text/event-stream", "application/json", "text/plain"


@dataclass(frozen=True)
class WireCase:
    """One answer: the `pieces` of its body and its label, then its text, its calls or the code of its error.

    A `text` of `None` is any.
    `words` is part of the error's message. `usage` is what was counted (input, output, reasoning if of interest). With
    `drops` the connection ends before the body does. A `reasoning` of `None` is any. `system` and
    `asked`, by roles, are the request; without them it mentions no tag.
    """

    name: str
    pieces: Pieces
    dialect: str = OPENAI
    label: str = EVENTS
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = ""
    calls: Calls = ()
    reason: str = "stop"
    error: str | None = None
    words: str = ""
    usage: tuple[int | None, ...] | None = None
    reasoning: str | None = None
    drops: bool = False
    system: str = ""
    asked: Mapping[Role, str] = field(default_factory=dict)


def sse(event: Any) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def chunk(reason: Any = None, **delta: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def said(*texts: str, reason: Any = None) -> bytes:
    return b"".join(chunk(reason, content=text) for text in texts)


def call(arguments: str | None = None, *, index: Any = 0, reason: Any = None, **fields: Any) -> bytes:
    """A piece of a call; `name` and `id` are fields."""
    name = fields.pop("name", None)
    function = {} if name is None else {"name": name}
    function |= {} if arguments is None else {"arguments": arguments}
    piece = {"function": function, **fields} | ({} if index is None else {"index": index})
    return chunk(reason, tool_calls=[piece])


def whole(text: str | None, reason: str | None = "stop", **message: Any) -> bytes:
    """A completion in one piece."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": COUNTED}).encode()


def usage_chunk(**members: Any) -> bytes:
    return sse({"choices": [], **members})


def with_message(text: str, reason: str | None = "stop", **choice: Any) -> bytes:
    return sse({"choices": [{**choice, "message": {"role": "assistant", "content": text}, "finish_reason": reason}]})


def paced(pause: float, *events: bytes) -> Pieces:
    return tuple(piece for event in events for piece in (event, pause))


def message_events(*events: Any, end: bool = True, reason: str = "end_turn") -> bytes:
    """Events of Anthropic's dialect."""
    return b"".join(map(anthropic.frame, [anthropic.start(), *events, *(anthropic.end(reason) if end else ())]))


def tool_block(start: Any, *pieces: str, **fields: Any) -> list[dict[str, Any]]:
    block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": start, **fields}
    shown = {name: value for name, value in block.items() if value is not ...}
    return anthropic.block(0, shown, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces])


COUNTED = {"prompt_tokens": 7, "completion_tokens": 5}
STOP = chunk("stop")
HELLO = said("Hello ", "there") + STOP + DONE
HI = message_events(*anthropic.text(["Hello ", "there"]))
CITY = '{"city":"Hanoi"}'
WEATHER: Calls = (("weather", CITY),)
OVERFLOW = '{"code":400,"message":"the request exceeds the available context size"}'
HALVES = ('{"city":', '"Hanoi"}')


def _ok(name: str, *pieces: bytes | float, **fields: Any) -> WireCase:
    fields.setdefault("text", "Hello there")
    return WireCase(name, pieces, **fields)


def _calls(name: str, *pieces: bytes | float, **fields: Any) -> WireCase:
    return WireCase(name, pieces, **{"calls": WEATHER, "reason": "tool_calls", **fields})


def _fails(name: str, *pieces: bytes | float, **fields: Any) -> WireCase:
    return WireCase(name, pieces, **{"error": "provider_error", **fields})


REPEATED = [
    _ok("message repeated at the end", said("Hello ", "there"), with_message("Hello there"), DONE),
    _ok("message repeated beside an empty delta", said("Hello ", "there"), with_message("Hello there", delta={}), DONE),
    _ok("message repeated beside a null delta", said("Hello ", "there"), with_message("Hello there", delta=None), DONE),
    _ok("message extends the deltas", said("Hello "), with_message("Hello there"), DONE),
    _ok(
        "cumulative messages beside deltas",
        with_message("Hello ", None, delta={"content": "Hello "}),
        with_message("Hello there", delta={"content": "there"}),
        DONE,
    ),
    _ok("messages instead of deltas", with_message("Hello ", None), with_message("there"), DONE),
    _ok(
        "messages instead of deltas, repeated",
        with_message("Hello ", None),
        with_message("there", None),
        with_message("Hello there"),
        DONE,
    ),
    _ok("equal messages instead of deltas", with_message("ha", None), with_message("ha"), DONE, text="haha"),
    _calls(
        "call repeated in the message",
        call(CITY, name="weather", id="a"),
        sse(
            {
                "choices": [
                    {
                        "delta": {},
                        "message": {
                            "content": None,
                            "tool_calls": [{"id": "a", "function": {"name": "weather", "arguments": CITY}}],
                        },
                        "finish_reason": "tool_calls",
                    }
                ]
            }
        ),
        DONE,
    ),
]
REASONS = [
    *(
        _ok(
            f"finish reason {reason} with every chunk",
            *paced(0.9, said("Hel", "lo ", "the", reason=reason)),
            said("re", reason=reason),
            DONE,
        )
        for reason in ("null", "None", "FINISH_REASON_UNSPECIFIED", "")
    ),
    _ok(
        "stop with every chunk, slowly",
        *paced(0.9, *(said(word, reason="stop") for word in ("Hel", "lo ", "the"))),
        said("re", reason="stop"),
        DONE,
    ),
    _ok("stop with every chunk, the body ends", *(said(word, reason="stop") for word in ("Hello ", "there"))),
    _fails(
        "stop with every chunk, then nothing",
        *(said(word, reason="stop") for word in ("Hello ", "th")),
        4.0,
        text="Hello th",
        error="provider_timeout",
    ),
    _fails(
        "stop with every chunk, connection drops",
        *(said(word, reason="stop") for word in ("Hello ", "th")),
        text="Hello th",
        drops=True,
    ),
    _fails(
        "stop with every chunk, connection ends",
        *(said(word, reason="stop") for word in ("Hello ", "th")),
        text="Hello th",
        headers={"connection": "close"},
    ),
    _ok(
        "stop with the thoughts, text later",
        chunk("stop", reasoning_content="Hm."),
        1.9,
        said("Hello ", "there"),
        STOP,
        DONE,
    ),
    _ok("stop before the text", chunk("stop", role="assistant", content=""), 1.9, said("Hello ", "there"), STOP, DONE),
    _ok("stop with the last text, kept open", said("Hello "), said("there", reason="stop"), 4.0),
    _calls(
        "stop with the pieces of a call",
        *paced(0.9, call("", name="weather", id="a", reason="stop"), call(HALVES[0], reason="stop")),
        0.9,
        call(HALVES[1], reason="stop"),
        DONE,
    ),
    _calls(
        "tool_calls with the pieces of a call",
        call("", name="weather", id="a", reason="tool_calls"),
        call(HALVES[0], reason="tool_calls"),
        1.9,
        call(HALVES[1], reason="tool_calls"),
        DONE,
    ),
    _ok("no end mark", said("Hello ", "there"), STOP),
    _ok("no finish reason", said("Hello ", "there"), DONE),
    _ok(
        "stop reason before the text",
        message_events(*anthropic.end()[:1], *anthropic.text(["Hello ", "there"])),
        dialect=ANTHROPIC,
    ),
    _fails(
        "stop reason null", message_events(*anthropic.text(["Hello "]), reason="null"), dialect=ANTHROPIC, text="Hello "
    ),
]
ERRORS = [
    _fails(
        "error field", f"error: {OVERFLOW}\n\n".encode(), DONE, error="provider_rejected_request", words="context size"
    ),
    _fails(
        "error field after text",
        said("Hello "),
        f"error: {OVERFLOW}\n\n".encode(),
        DONE,
        text="Hello ",
        error="provider_rejected_request",
    ),
    _fails("error field without JSON", b"error: the GPU is on fire\n\n", words="on fire"),
    _fails("error event", f"event: error\ndata: {OVERFLOW}\n\n".encode(), DONE, error="provider_rejected_request"),
    _fails("error event without JSON", b"event: error\ndata: the GPU is on fire\n\n", DONE, words="on fire"),
    _fails(
        "error event, bare, after text",
        message_events(*anthropic.text(["Hello "]), end=False)
        + b'event: error\ndata: {"code":"overloaded","message":"come back later"}\n\n',
        dialect=ANTHROPIC,
        text="Hello ",
        words="come back later",
    ),
    *(
        _fails(f"{name} as {label}", body, label=label, words=words, error=code)
        for label in (EVENTS, TEXT, JSON)
        for name, body, words, code in (
            ("error", b'{"error":{"message":"the GPU is on fire"}}', "on fire", "provider_error"),
            ("error list", b'[{"error":{"code":429,"message":"slow down"}}]', "slow down", "rate_limit_exceeded"),
            ("detail", b'{"detail":"the GPU is on fire"}', "on fire", "provider_error"),
            ("code and msg", b'{"code":1113,"msg":"no more money"}', "no more money", "provider_error"),
            (
                "base_resp",
                b'{"choices":null,"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}',
                "insufficient balance",
                "rate_limit_exceeded",
            ),
        )
    ),
    _fails(
        "error as a line after text",
        said("Hello "),
        b'{"error":{"message":"the GPU is on fire"}}\n',
        text="Hello ",
        words="on fire",
    ),
    _fails("error without a type", b'{"error":{"message":"the GPU is on fire"}}', dialect=ANTHROPIC, words="on fire"),
    _fails("detail", b'{"detail":"the GPU is on fire"}', dialect=ANTHROPIC, label=JSON, words="on fire"),
]
EMPTY = [
    _fails("end mark alone", DONE, words="without any text"),
    _fails("role and end mark", chunk(role="assistant", content=""), DONE),
    _fails("usage and end mark", usage_chunk(usage=COUNTED), DONE),
    _fails("empty body", b""),
    _fails("tool_calls without calls", chunk("tool_calls"), DONE),
    _fails("tool_use without calls", message_events(reason="tool_use"), dialect=ANTHROPIC),
    _fails("reasoning only", chunk(reasoning_content="Hm."), STOP, DONE, words="reasoning"),
    _fails("reasoning only, other field", chunk(reasoning="Hm."), STOP, DONE, words="reasoning"),
    _fails("reasoning only in one piece", whole("", reasoning_content="Hm."), label=JSON, words="reasoning"),
    _fails("thinking only", message_events(*anthropic.THINKING), dialect=ANTHROPIC, words="thinking"),
    _ok("empty with a reason", chunk(role="assistant", content=""), STOP, DONE, text=""),
    _ok("reasoning cut by the limit", chunk(reasoning_content="Hm."), chunk("length"), DONE, text="", reason="length"),
]
LABELS = [
    *(_ok(f"events labelled {label}", HELLO, label=label) for label in (JSON, TEXT, "")),
    *(
        _ok(f"completion labelled {label}", whole("Hello there"), label=label, usage=(7, 5))
        for label in (JSON, "Application/JSON", "application/problem+json", TEXT, EVENTS, "")
    ),
    _ok("completion after white space", b"\n\n", b"  \n", whole("Hello there"), label=JSON),
    _ok("completion with a byte order mark", b"\xef\xbb\xbf" + whole("Hello there"), label=TEXT),
    _ok(
        "chunks without frames",
        HELLO.replace(b"data: ", b"").replace(b"[DONE]", b"").replace(b"\n\n", b"\n"),
        label="application/x-ndjson",
    ),
    _ok(
        "whole message",
        json.dumps(
            {
                "type": "message",
                "content": [{"type": "text", "text": "Hello there"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 7, "output_tokens": 5},
            }
        ).encode(),
        dialect=ANTHROPIC,
        label=JSON,
        usage=(7, 5),
    ),
    _calls(
        "whole message with a call",
        json.dumps(
            {
                "type": "message",
                "content": tool_block({"city": "Hanoi"})[0]["content_block"]
                and [tool_block({"city": "Hanoi"})[0]["content_block"]],
                "stop_reason": "tool_use",
            }
        ).encode(),
        dialect=ANTHROPIC,
        label=EVENTS,
    ),
]
KEEP_ALIVES = [
    *(
        _ok(f"keep-alive {keep_alive!r}", keep_alive, said("Hello "), keep_alive, said("there"), STOP, DONE)
        for keep_alive in (
            b"data:\n\n",
            b"data: \n\n",
            b"data: : keepalive\n\n",
            b"event: ping\ndata:\n\n",
            b"data: null\n\n",
            b"data: {}\n\n",
            b": hello\n\n",
            b'event: ping\ndata: {"type":"ping"}\n\n',
        )
    ),
    _ok("keep-alives", b"data: null\n\ndata: : x\n\n" + HI + b"data:\n\n", dialect=ANTHROPIC),
    _ok("end mark with a space", said("Hello ", "there"), b"data: [DONE] \n\n", 3.0),
    _ok("end mark after two spaces", said("Hello ", "there"), b"data:  [DONE]\n\n", 3.0),
    _ok(
        "end mark of the other dialect",
        message_events(*anthropic.text(["Hello ", "there"]), *anthropic.end()[:1], end=False) + DONE,
        3.0,
        dialect=ANTHROPIC,
    ),
    _fails(
        "end mark without a stop reason",
        message_events(*anthropic.text(["Hello "]), end=False) + DONE,
        dialect=ANTHROPIC,
        text="Hello ",
    ),
]
CALLS = [
    _calls(
        "id that changes",
        call("", name="weather", id="a"),
        call(HALVES[0], id="b"),
        call(HALVES[1], id="c"),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "name in the first piece only",
        call(HALVES[0], name="weather", id="a"),
        call(HALVES[1]),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "name and arguments at different indexes",
        call("", name="weather", id="a"),
        call(HALVES[0], index=1),
        call(HALVES[1], index=1),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "id and name again in each piece",
        call(HALVES[0], name="weather", id="a"),
        call(HALVES[1], name="weather", id="b"),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "id and name again, arguments later",
        call("", name="weather", id="a"),
        call(CITY, name="weather", id="b"),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "same id at each index",
        call(HALVES[0], name="weather", id="a"),
        call(HALVES[1], name="weather", id="a", index=1),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "two calls of one index",
        call("{}", name="weather", id="a"),
        call(CITY, name="weather", id="b"),
        chunk("tool_calls"),
        DONE,
        calls=(("weather", "{}"), *WEATHER),
    ),
    _calls("no arguments", call("", name="weather", id="a"), chunk("tool_calls"), DONE, calls=(("weather", "{}"),)),
    _calls(
        "null for arguments",
        call("null", name="weather", id="a"),
        chunk("tool_calls"),
        DONE,
        calls=(("weather", "{}"),),
    ),
    _calls("arguments encoded twice", call(json.dumps(CITY), name="weather", id="a"), chunk("tool_calls"), DONE),
    *(
        _fails(
            f"half a call, {reason}",
            call(HALVES[0], name="weather", id="a"),
            chunk(reason),
            DONE,
            words="not a JSON object",
        )
        for reason in ("stop", "tool_calls")
    ),
    _fails("half a call, no reason", call(HALVES[0], name="weather", id="a"), DONE),
    _fails("list for arguments", call("[1]", name="weather", id="a"), chunk("tool_calls"), DONE),
    _fails(
        "half a call in one piece",
        whole(None, "tool_calls", tool_calls=[{"id": "a", "function": {"name": "weather", "arguments": HALVES[0]}}]),
        label=JSON,
    ),
    _calls(
        "half a call, length", call(HALVES[0], name="weather", id="a"), chunk("length"), DONE, calls=(), reason="length"
    ),
    _fails("half a call", message_events(*tool_block({}, HALVES[0]), reason="tool_use"), dialect=ANTHROPIC),
    _calls(
        "half a call, length",
        message_events(*tool_block({}, HALVES[0]), reason="max_tokens"),
        dialect=ANTHROPIC,
        calls=(),
        reason="length",
    ),
    _calls("call without an id", message_events(*tool_block({}, CITY, id=...), reason="tool_use"), dialect=ANTHROPIC),
    _calls("input in the start", message_events(*tool_block({"city": "Hanoi"}), reason="tool_use"), dialect=ANTHROPIC),
    _calls(
        "input in the start and again",
        message_events(*tool_block({"city": "Hanoi"}, *HALVES), reason="tool_use"),
        dialect=ANTHROPIC,
    ),
    _calls("input null", message_events(*tool_block(None, CITY), reason="tool_use"), dialect=ANTHROPIC),
]
CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", lambda data: zlib.compress(data, wbits=-15)),  # without zlib's header, as some servers send it
    ("br", brotli.compress),
    ("zstd", zstd_compress),
]
COMPRESSED = [
    case
    for coding, compress in CODINGS
    for case in (
        _ok(f"events in {coding}", compress(HELLO), headers={"content_encoding": coding}),
        _ok(
            f"completion in {coding}", compress(whole("Hello there")), label=JSON, headers={"content_encoding": coding}
        ),
        _ok(f"message in {coding}", compress(HI), headers={"content_encoding": coding}, dialect=ANTHROPIC),
        _fails(
            f"error in {coding}",
            compress(b'{"error":{"message":"the GPU is on fire"}}'),
            label=JSON,
            headers={"content_encoding": coding},
            words="on fire",
        ),
        _fails(
            f"cut in {coding}", compress(said("Hello ") * 50)[:-12], headers={"content_encoding": coding}, text=None
        ),
    )
]
MISLABELLED = [
    *(
        case
        for coding in ("utf-8", "none", "identity, utf-8", "gzip", "zstd", "gzip, identity", "x-unknown", "")
        for case in (
            _ok(f"plain events as {coding!r}", HELLO, headers={"content_encoding": coding}),
            _ok(f"plain completion as {coding!r}", whole("Hello there"), headers={"content_encoding": coding}),
            _ok(f"plain message as {coding!r}", HI, headers={"content_encoding": coding}, dialect=ANTHROPIC),
            _fails(
                f"plain error as {coding!r}", b'{"error":"on fire"}', headers={"content_encoding": coding}, words="fire"
            ),
        )
    ),
    *(
        _ok(f"{name} as {coding!r}", compress(HELLO), headers={"content_encoding": coding})
        for name, compress in (("gzip", gzip.compress), ("zstd", zstd_compress))
        for coding in ("", "identity", "identity, gzip", "gzip, identity", "GZIP", "utf-8", "zstd", "x-gzip")
    ),
    _ok("gzip without a label", gzip.compress(HELLO)),
    _ok("gzip without a label in pieces", b"\x1f", 0.05, gzip.compress(HELLO)[1:]),
    _ok(
        "zstd without a label in pieces",
        zstd_compress(HELLO)[:1],
        0.05,
        zstd_compress(HELLO)[1:3],
        zstd_compress(HELLO)[3:],
    ),
    _ok("plain events as gzip after white space", b"\n", 0.05, HELLO, headers={"content_encoding": "gzip"}),
    _fails("cut after the first byte of gzip", b"\x1f"),
    _fails("unknown coding", b"\x1f\x9d\x90" + HELLO, headers={"content_encoding": "compress"}, words="'compress'"),
    _fails(
        "two codings", brotli.compress(gzip.compress(HELLO)), headers={"content_encoding": "gzip, br"}, words="gzip, br"
    ),
]
TEXTS = [
    _ok("thoughts in the text", said("<think>Hm.</think>\n\nHello ", "there"), STOP, DONE),
    _ok("thoughts in pieces", said("<th", "ink>H", "m.</thi", "nk>", "\n", "Hello ", "there"), STOP, DONE),
    _ok("thoughts in one piece", whole("<think>\nHm.\n</think>\nHello there"), label=JSON),
    _ok("empty thoughts", said("<think>", "</think>", "Hello ", "there"), STOP, DONE),
    _fails("thoughts only", said("<think>Hm.", "</think>"), STOP, DONE, words="reasoning"),
    _fails("thoughts without an end", said("<think>Hm."), STOP, DONE, words="reasoning"),
    _ok("no thoughts, but their start", said("<", "thin"), STOP, DONE, text="<thin"),
    _ok("tag inside the text", said("Use <think>", " here</think>."), STOP, DONE, text="Use <think> here</think>."),
    _ok("white space first", said("  ", "Hello"), STOP, DONE, text="  Hello"),
    _ok(
        "thoughts in the text",
        message_events(*anthropic.text(["<think>Hm.", "</think>Hello ", "there"])),
        dialect=ANTHROPIC,
    ),
    _ok("part without a type", chunk(content=[{"text": "Hello "}, {"type": "text", "text": "there"}]), STOP, DONE),
    _ok(
        "parts with thoughts",
        chunk(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]),
        chunk(content=[{"type": "text", "text": "Hello there"}]),
        STOP,
        DONE,
    ),
    _fails(
        "parts with thoughts only",
        chunk(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]),
        STOP,
        DONE,
        words="reasoning",
    ),
    _ok(
        "block without text",
        message_events(*anthropic.block(0, {"type": "text"}, [{"type": "text_delta", "text": "Hello there"}])),
        dialect=ANTHROPIC,
    ),
    _ok(
        "block with null",
        message_events(
            *anthropic.block(
                0,
                {"type": "text", "text": None},
                [{"type": "text_delta", "text": "Hello there"}, {"type": "text_delta", "text": None}],
            )
        ),
        dialect=ANTHROPIC,
    ),
    _ok(
        "byte that is not UTF-8",
        said("Hello ") + b'data: {"choices":[{"index":0,"delta":{"content":"th\xffere"}}]}\n\n' + STOP + DONE,
        text="Hello th\ufffdere",
    ),
    _ok("byte that is not UTF-8", HI.replace(b"there", b"th\xffere"), dialect=ANTHROPIC, text="Hello th\ufffdere"),
]
SAID = ("Hello ", "there")


def _reasoning_counts() -> Iterator[WireCase]:
    """How providers count reasoning, and what it comes to: OpenAI, xAI, SGLang, Google's dialect elsewhere."""
    known = {"completion_tokens_details": {"reasoning_tokens": 3}}
    for name, counted, expected in (
        ("within the output", {**known, "total_tokens": 12}, (7, 5, 3)),
        ("beside the output", {**known, "total_tokens": 15}, (7, 8, 3)),
        ("more than the output", {"completion_tokens_details": {"reasoning_tokens": 9}}, (7, 14, 9)),
        ("none", {"completion_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 12}, (7, 5, 0)),
        ("among the counts", {"reasoning_tokens": 2}, (7, 5, 2)),
        ("by another name", {"output_tokens_details": {"reasoning_tokens": 2}}, (7, 5, 2)),
        ("not at all", {"total_tokens": 20, "completion_tokens_details": {"reasoning_tokens": None}}, (7, 5, None)),
        ("not as a number", {"completion_tokens_details": [3]}, (7, 5, None)),
    ):
        usage = usage_chunk(usage={"prompt_tokens": 7, "completion_tokens": 5, **counted})
        yield _ok(f"reasoning counted {name}", said(*SAID), STOP, usage, DONE, usage=expected)
    for details, expected in (({"thinking_tokens": 3}, (9, 5, 3)), ({}, (9, 5, None)), ([3], (9, 5, None))):
        last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
        last["usage"] = {"output_tokens": 5, "output_tokens_details": details}
        events = message_events(*anthropic.text(list(SAID)), last, {"type": "message_stop"}, end=False)
        yield _ok(f"thinking counted as {details}", events, dialect=ANTHROPIC, usage=expected)


COUNTS = [
    _ok(
        "usage in x_groq",
        said("Hello ", "there"),
        sse({"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": COUNTED}}),
        DONE,
        usage=(7, 5),
    ),
    _ok(
        "usage with every chunk",
        *(
            sse({"choices": [{"delta": {"content": text}}], "usage": {"prompt_tokens": 7, "completion_tokens": count}})
            for count, text in enumerate(("Hello ", "there"), 4)
        ),
        STOP,
        DONE,
        usage=(7, 5),
    ),
    _ok("usage late", said("Hello ", "there"), STOP, 1.0, usage_chunk(usage=COUNTED), DONE, usage=(7, 5)),
    _ok(
        "usage null with every chunk",
        sse({"choices": [{"delta": {"content": "Hello there"}}], "usage": None}),
        STOP,
        usage_chunk(usage=COUNTED),
        DONE,
        usage=(7, 5),
    ),
    *_reasoning_counts(),
]


def _reasoning() -> Iterator[WireCase]:
    """Reasoning in all its forms, as those see it who want to."""
    thought = {"reasoning": "Hm. So."}
    details = [{"type": "reasoning.text", "index": 0, "text": text} for text in ("Hm. ", "So.")]
    whole_detail = [{"type": "reasoning.text", "index": 0, "text": "Hm. So."}]
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]} for text in ("Hm. ", "So.")]
    forms: dict[str, list[dict[str, Any]]] = {
        "reasoning_content": [{"reasoning_content": "Hm. "}, {"reasoning_content": "So."}],
        "reasoning": [{"reasoning": "Hm. "}, {"reasoning": "So."}],
        "both fields": [{"reasoning_content": text, "reasoning": text} for text in ("Hm. ", "So.")],
        "details": [{"reasoning_details": [one]} for one in details],
        "details of several": [{"reasoning_details": details}],
        "field and details": [{"reasoning": one["text"], "reasoning_details": [one]} for one in details],
        "encrypted details": [thought, {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}],
        "thinking parts": [{"content": [one]} for one in parts],
        "other parts": [{"content": [{"type": "reasoning", "text": "Hm. So."}]}],
        "nulls": [{"reasoning_content": None, "reasoning": 5}, thought],
    }
    for name, pieces in forms.items():
        deltas = b"".join(chunk(**one) for one in pieces)
        yield _ok(f"reasoning as {name}", *(chunk(**one) for one in pieces), said(*SAID), STOP, DONE, **thought)
        yield _ok(f"reasoning as {name}, at once", deltas + said(*SAID) + STOP + DONE, **thought)
    for name, message in (
        ("field", {"reasoning_content": "Hm. So."}),
        ("details", {"reasoning_details": whole_detail}),
    ):
        yield _ok(f"reasoning of a message as {name}", whole("Hello there", **message), label=JSON, **thought)
        repeated = chunk(**message), sse({"choices": [{"message": {"content": "Hello there", **message}}]})
        yield _ok(f"reasoning repeated as {name}", *repeated, STOP, DONE, **thought)
    harmony = ("<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>")
    for opening, closing in (("<think>", "</think>"), ("[THINK]", "[/THINK]"), harmony):
        written = (f"{opening}Hm. ", f"So.{closing}Hello ", "there")
        yield _ok(f"reasoning in {opening}", said(*written), STOP, DONE, **thought)
        letters = "".join(written)
        yield _ok(f"reasoning in {opening} by letters", said(*letters), STOP, DONE, **thought)
        events = message_events(*anthropic.text(list(letters)))
        yield _ok(f"reasoning in {opening} by letters", events, dialect=ANTHROPIC, **thought)
    untagged = said("Hm. So.\n</think>\n\nHello there")
    yield _ok("reasoning without an opening tag", untagged, STOP, DONE, reasoning="Hm. So.\n")
    cut = said("<think>Hm. ", "So.") + chunk("length") + DONE
    yield _ok("reasoning in a tag cut by the limit", cut, text="", reason="length", **thought)
    thinking = {"type": "thinking", "thinking": "", "signature": "s"}
    thoughts = [{"type": "thinking_delta", "thinking": text} for text in ("Hm. ", "So.")]
    blocks = [*anthropic.block(0, thinking, thoughts), *anthropic.text(list(SAID), 1)]
    yield _ok("thinking", message_events(*blocks), dialect=ANTHROPIC, **thought)
    content = [{**thinking, "thinking": "Hm. So."}, {"type": "text", "text": "Hello there"}]
    answer = {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}
    yield _ok("thinking of a message", json.dumps(answer).encode(), dialect=ANTHROPIC, label=JSON, **thought)
    yield _ok("no reasoning", said(*SAID), STOP, DONE, reasoning="")


UNFINISHED = (
    "failed",
    "server_error",
    "overloaded",
    "interrupted",
    "OTHER",
    "banana",
    "cancelled",
    1,
    {"type": "length"},
)
SHORTENED = ("MAX_TOKENS", "length", "token_limit", "maxPredictedTokensReached", "max-length")
WITHHELD = ("SAFETY", "content-filter", "guardrail_intervened")


def _endings(ending: Any, make: Callable[..., WireCase], **fields: Any) -> list[WireCase]:
    """The same reason at the end of both dialects."""
    events = message_events(*anthropic.text(list(SAID)), reason=ending)
    return [
        make(f"ends with {ending}", said(*SAID), chunk(ending), DONE, text=None, **fields),
        make(f"ends with {ending}", events, dialect=ANTHROPIC, text=None, **fields),
    ]


STRAY = [{"type": "content_block_delta", "index": 7, "delta": {"type": "input_json_delta", "partial_json": CITY}}]
SAME_INDEX = [*tool_block({}, CITY), *tool_block({}, "{}", id="toolu_2", name="clock")]
CLOSING = {"role": "assistant", "content": "Hello there", "tool_calls": [{"id": "c", "function": {"name": "weather"}}]}
CLOSING["tool_calls"][0]["function"]["arguments"] = CITY  # type: ignore[index]
TWINS = [{"id": "a", "function": {"name": "clock", "arguments": ""}}]
TWINS += [{"id": "a", "function": {"name": "weather", "arguments": CITY}}]

CONTRADICTIONS = [
    *(row for reason in UNFINISHED[:7] for row in _endings(reason, _fails)),
    *(_endings(reason, _fails)[0] for reason in UNFINISHED[7:]),
    *(row for reason in SHORTENED for row in _endings(reason, _ok, reason="length")),
    *(row for reason in WITHHELD for row in _endings(reason, _ok, reason="content_filter")),
    _fails("two different answers", said(*SAID), with_message("Goodbye now"), DONE, text="Hello there"),
    _ok("message with other white space", said("Hello ", "there\n"), with_message("Hello there"), DONE, text=None),
    _calls(
        "a call in the closing message only",
        *(said(*SAID), sse({"choices": [{"message": CLOSING, "finish_reason": "tool_calls"}]}), DONE),
        text="Hello there",
    ),
    _calls(
        "text in the closing message only",
        *(call(CITY, id="c", name="weather"), with_message("Hello there", "tool_calls"), DONE),
        text="Hello there",
    ),
    _calls("two calls under one id", chunk(tool_calls=TWINS), DONE, calls=(("clock", "{}"), *WEATHER)),
    _calls("a name that grows", call("", id="c", name="wea"), call(CITY, id="c", name="weather"), STOP, DONE),
    _ok("text of a completion", sse({"choices": [{"text": "Hello there", "finish_reason": "stop"}]}), DONE),
    _calls(
        "arguments at an index that no block has",
        message_events(*tool_block({})[:1], *STRAY, tool_block({})[-1], reason="tool_use"),
        dialect=ANTHROPIC,
    ),
    _calls(
        "two calls at one index",
        message_events(*SAME_INDEX, reason="tool_use"),
        dialect=ANTHROPIC,
        calls=(*WEATHER, ("clock", "{}")),
    ),
    _fails(
        "nothing but a block of an unknown kind",
        message_events(*anthropic.block(0, {"type": "banana"}, [])),
        dialect=ANTHROPIC,
    ),
    _ok(
        "usage in the choice",
        *(said(*SAID), sse({"choices": [{"delta": {}, "finish_reason": "stop", "usage": COUNTED}]}), DONE),
        usage=(7, 5),
    ),
    _ok(
        "usage by other names",
        *(said(*SAID), STOP, usage_chunk(usage={"input_tokens": 7, "output_tokens": 5}), DONE),
        usage=(7, 5),
    ),
    _ok(
        "zeros after the usage",
        *(said(*SAID), STOP, usage_chunk(usage=COUNTED), usage_chunk(usage={"prompt_tokens": 0}), DONE),
        usage=(7, 5),
    ),
]


def messages(*texts: str, reason: str | None = "stop") -> bytes:
    """Chunks with messages instead of deltas, the last one with the finish reason."""
    return b"".join(with_message(text, None) for text in texts[:-1]) + with_message(texts[-1], reason)


def said_twice(start: str, *deltas: str) -> list[dict[str, Any]]:
    """A text block whose start has text, too."""
    return anthropic.block(0, {"type": "text", "text": start}, [{"type": "text_delta", "text": one} for one in deltas])


def choice(index: int | None, text: str, reason: str | None = None) -> dict[str, Any]:
    shown = {"delta": {"content": text}, "finish_reason": reason}
    return shown if index is None else {"index": index, **shown}


def choices(*found: dict[str, Any]) -> bytes:
    return sse({"choices": list(found)})


def started_with(*content: Any, **members: Any) -> dict[str, Any]:
    """The start of a message that has content."""
    start = anthropic.start()
    return {**start, "message": {**start["message"], "content": list(content), **members}}


def framed(*events: Any) -> bytes:
    return b"".join(map(anthropic.frame, events))


GIVEN_CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Hanoi"}}
GIVEN_TEXT = {"type": "text", "text": "Hello there"}

DOUBLED = [
    _ok("messages that grow", messages("Hello", "Hello the", "Hello there"), DONE),
    _ok("messages that grow, the last repeated", messages("Hello ", "Hello there", "Hello there"), DONE),
    _ok("messages that grow from one letter", messages("H", "He", "Hello ", "Hello there"), DONE),
    _ok("one message, repeated", messages("Hello there", "Hello there"), DONE),
    _ok("two messages, the second longer", messages("Hel", "Hello there"), DONE),
    _ok("messages that grow, white space apart", messages("Hello there ", "Hello there\n"), DONE, text=None),
    _ok("pieces that begin alike", messages("1", "10", " and 5"), DONE, text="110 and 5"),
    _ok("deltas that begin alike", said("ha", "haha"), STOP, DONE, text="hahaha"),
    _ok("equal deltas", said("Hello there. ", "Hello there. "), STOP, DONE, text="Hello there. Hello there. "),
    _fails("messages that grow, then another", messages("Hello ", "Hello there", "Goodbye now"), DONE, text=None),
    _fails("messages that grow, cut", messages("Hello ", "Hello the", reason=None), text=None),
    _calls(
        "calls in messages that grow",
        *(
            sse({"choices": [{"message": {"content": None, "tool_calls": [made]}, "finish_reason": reason}]})
            for made, reason in (
                ({"id": "a", "function": {"name": "weather", "arguments": ""}}, None),
                ({"id": "a", "function": {"name": "weather", "arguments": HALVES[0]}}, None),
                ({"id": "a", "function": {"name": "weather", "arguments": CITY}}, None),
                ({"id": "a", "function": {"name": "weather", "arguments": CITY}}, "tool_calls"),
            )
        ),
        DONE,
    ),
    _ok("block whole in the start", message_events(*said_twice("Hello there")), dialect=ANTHROPIC),
    _ok(
        "block whole in the start and again",
        message_events(*said_twice("Hello there", "Hello ", "there")),
        dialect=ANTHROPIC,
    ),
    _ok(
        "block whole in the start and again at once",
        message_events(*said_twice("Hello there", "Hello there")),
        dialect=ANTHROPIC,
    ),
    _ok("block that begins in the start", message_events(*said_twice("Hello ", "there")), dialect=ANTHROPIC),
    _ok(
        "block that begins like its start",
        message_events(*said_twice("ha", "ha", "ha")),
        dialect=ANTHROPIC,
        text="hahaha",
    ),
    _ok("message in its start", framed(started_with(GIVEN_TEXT), *anthropic.end()), dialect=ANTHROPIC),
    _ok(
        "message in its start and in blocks",
        framed(started_with(GIVEN_TEXT), *anthropic.text(["Hello ", "there"]), *anthropic.end()),
        dialect=ANTHROPIC,
    ),
    _ok(
        "message in its start and whole in a block",
        framed(started_with(GIVEN_TEXT), *said_twice("Hello there"), *anthropic.end()),
        dialect=ANTHROPIC,
    ),
    _ok(
        "beginning in the start",
        framed(started_with({"type": "text", "text": "Hello "}), *anthropic.text(["there"], 1), *anthropic.end()),
        dialect=ANTHROPIC,
    ),
    _ok(
        "message and its end in its start",
        framed(started_with(GIVEN_TEXT, stop_reason="end_turn"), {"type": "message_stop"}),
        dialect=ANTHROPIC,
    ),
    _ok(
        "content null in the start",
        framed(started_with() | {"message": {"content": None}}, *anthropic.text(["Hello ", "there"]), *anthropic.end()),
        dialect=ANTHROPIC,
    ),
    _ok(
        "text in the start",
        framed(started_with() | {"message": {"content": "Hello there"}}, *anthropic.end()),
        dialect=ANTHROPIC,
    ),
    _calls("call in the start", framed(started_with(GIVEN_CALL), *anthropic.end("tool_use")), dialect=ANTHROPIC),
    _calls(
        "call in the start and in a block",
        framed(started_with(GIVEN_CALL), *tool_block({}, *HALVES), *anthropic.end("tool_use")),
        dialect=ANTHROPIC,
    ),
    _ok(
        "other choices",
        choices(choice(0, "Hello "), choice(1, "Goodbye ")),
        choices(choice(1, "now", "stop")),
        choices(choice(0, "there", "stop")),
        DONE,
    ),
    _ok("other choices first", choices(choice(1, "Goodbye"), choice(0, "Hello there", "stop")), DONE),
    _ok(
        "choices in their own chunks",
        choices(choice(0, "Hello ")),
        choices(choice(1, "Bye")),
        choices(choice(0, "there", "stop")),
        choices(choice(1, "", "stop")),
        DONE,
    ),
    _ok("only a later choice", choices(choice(1, "Hello ")), choices(choice(1, "there", "stop")), DONE),
    _ok("choices without indexes", choices(choice(None, "Hello ")), choices(choice(0, "there", "stop")), DONE),
    _fails(
        "the first choice is cut", choices(choice(0, "Hello ")), choices(choice(1, "Bye", "stop")), DONE, text="Hello "
    ),
    _fails("an index for each chunk", *(choices(choice(n, word)) for n, word in enumerate(SAID)), DONE, text=None),
    _ok(
        "whole completion with several choices",
        json.dumps(
            {
                "choices": [
                    {"index": 1, "message": {"content": "Goodbye"}, "finish_reason": "stop"},
                    {"index": 0, "message": {"content": "Hello there"}, "finish_reason": "stop"},
                ]
            }
        ).encode(),
        label=JSON,
    ),
]
WORDED = [
    *(
        _fails(f"{name}{after}", *before, body, DONE, text=text, words=words)
        for after, before, text in (("", (), ""), (" after text", (said("Hello "),), "Hello "))
        for name, body, words in (
            ("error event without data", b"event: error\n\n", ""),
            ("error event with empty data", b"event: error\ndata:\n\n", ""),
            ("error event with null", b"event: error\ndata: null\n\n", ""),
            ("error event with a text in JSON", b'event: error\ndata: "the GPU is on fire"\n\n', "on fire"),
            ("error event of several lines", b"event: error\ndata: the GPU\ndata: is on fire\n\n", "is on fire"),
            ("error event, capitals", b"event: ERROR\ndata: the GPU is on fire\n\n", "on fire"),
            ("error event after its data", b"data: the GPU is on fire\nevent: error\n\n", "on fire"),
            ("data without JSON", b"data: Error: the GPU is on fire\n\n", "on fire"),
        )
    ),
    _fails("error event without data at the end", said("Hello "), b"event: error\n", text="Hello "),
    _fails("error event without data", framed(anthropic.start()) + b"event: error\n\n", dialect=ANTHROPIC),
    _fails(
        "error event without JSON",
        framed(anthropic.start()) + b"event: error\ndata: the GPU is on fire\n\n",
        dialect=ANTHROPIC,
        words="on fire",
    ),
    *(
        _fails(
            f"overflow with code {code!r}",
            sse({"error": {"code": code, "message": "the request exceeds the available context size"}}),
            error="provider_rejected_request",
            words="context size",
        )
        for code in (500, "500", 503, "internal_error", None)
    ),
    _fails(
        "overflow as an api_error",
        framed(anthropic.start(), anthropic.error("api_error", "prompt is too long: 213421 tokens > 200000 maximum")),
        dialect=ANTHROPIC,
        error="provider_rejected_request",
    ),
]
ENDS = [
    *(
        _ok(f"end mark {mark!r}", said(*SAID), b"data: " + mark + b"\n\n", 3.0)
        for mark in (b"[done]", b'"[DONE]"', b"[Done]", b"'[DONE]'", b'"[done]" ', b"DONE")
    ),
    *(
        _ok(f"completion and end mark as {label}", whole("Hello there"), ends, label=label)
        for label in (JSON, EVENTS)
        for ends in (b"\ndata: [DONE]\n\n", b"\n\ndata: [DONE]\n\n", b"data: [DONE]\n\n", b"\n[DONE]\n")
    ),
    _ok(
        "completion of several lines and end mark",
        json.dumps(json.loads(whole("Hello there")), indent=2).encode(),
        b"\n\ndata: [DONE]\n\n",
    ),
    _ok(
        "message and end mark",
        json.dumps({"type": "message", "content": [GIVEN_TEXT], "stop_reason": "end_turn"}).encode(),
        b"\n\ndata: [DONE]\n\n",
        dialect=ANTHROPIC,
    ),
    _fails("half a completion and end mark", whole("Hello there")[:-20], b"\n\ndata: [DONE]\n\n"),
    _fails("completion without a reason", whole("Hello there", None)[:-1] + b',"error":"cut"}', text=None),
]
UNPROVEN = [
    _fails("call without arguments, end mark only", call("", name="weather", id="a"), DONE),
    _fails("call without arguments, nothing more", call("", name="weather", id="a")),
    _fails(
        "call without arguments, more to come",
        call("", name="weather", id="a"),
        chunk("tool_calls"),
        4.0,
        error="provider_timeout",
    ),
    _calls(
        "call whose arguments come after the reason",
        call("", name="weather", id="a"),
        chunk("tool_calls"),
        1.9,
        call(CITY),
        DONE,
    ),
    _calls(
        "call with null arguments",
        call(None, name="weather", id="a"),
        chunk("tool_calls"),
        DONE,
        calls=(("weather", "{}"),),
    ),
    _calls("call with an empty object", call("{}", name="weather", id="a"), DONE, calls=(("weather", "{}"),)),
    _calls(
        "call without input",
        message_events(*tool_block({}), reason="tool_use"),
        dialect=ANTHROPIC,
        calls=(("weather", "{}"),),
    ),
    _fails("call without input, not ended", message_events(*tool_block({})[:1], end=False), dialect=ANTHROPIC),
    _fails(
        "text and tool_calls without calls",
        said(*SAID),
        chunk("tool_calls"),
        DONE,
        text="Hello there",
        words="sent none",
    ),
    _fails("text and function_call without calls", said(*SAID), chunk("function_call"), DONE, text=None),
    _fails("completion with tool_calls without calls", whole("Hello there", "tool_calls"), label=JSON, text=None),
    _fails("completion with an empty list of calls", whole("Hello there", "tool_calls", tool_calls=[]), text=None),
    _fails(
        "text and tool_use without calls",
        message_events(*anthropic.text(list(SAID)), reason="tool_use"),
        dialect=ANTHROPIC,
        text="Hello there",
        words="sent none",
    ),
]
PIECES_OF_NAMES = [
    _calls("name in two pieces", call(None, name="wea", id="a"), call(CITY, name="ther"), chunk("tool_calls"), DONE),
    _calls(
        "name in two pieces, one id",
        call(None, name="wea", id="a"),
        call(CITY, name="ther", id="a"),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "name in two pieces, new id",
        call(None, name="wea", id="a"),
        call(CITY, name="ther", id="b"),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "name in two pieces, no index",
        call(None, name="wea", id="a", index=None),
        call(CITY, name="ther", index=None),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "name in letters",
        *(call("", name=letter, id="a") for letter in "weather"),
        call(CITY),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "name in two pieces of the older form",
        chunk(function_call={"name": "wea"}),
        chunk(function_call={"name": "ther", "arguments": CITY}),
        chunk("function_call"),
        DONE,
    ),
    _calls(
        "name repeated",
        call("", name="weather", id="a"),
        call(HALVES[0], name="weather"),
        call(HALVES[1], name="weather"),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "name that grows and repeats",
        call("", name="wea", id="a"),
        call("", name="weather", id="a"),
        call(CITY, name="weather", id="a"),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "name empty at first",
        call("", name="", id="a"),
        call("", name="weather", id="a"),
        call(CITY, name=""),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "names of two functions",
        call("{}", name="wea", id="a"),
        call(CITY, name="weather", id="b", index=1),
        chunk("tool_calls"),
        DONE,
        calls=(("wea", "{}"), *WEATHER),
    ),
]
THOUGHTS = [
    *(
        _ok(f"thoughts in {start}", said(f"{start}Hm.", f"{end}\n\nHello ", "there"), STOP, DONE)
        for start, end in (
            ("<thought>", "</thought>"),
            ("<THINK>", "</THINK>"),
            ("<Think>", "</think>"),
            ("<thinking>", "</thinking>"),
            ("<think>\n", "\n</think>"),
            ("[THINK]", "[/THINK]"),
            ("<reasoning>", "</reasoning>"),
            ("<seed:think>", "</seed:think>"),
        )
    ),
    _ok("thoughts in capitals, in pieces", said("<TH", "INK", ">Hm", ".</TH", "INK>", "Hello ", "there"), STOP, DONE),
    _ok("end of thoughts first", said("</think>", "\n\nHello ", "there"), STOP, DONE),
    _ok("end of thoughts first, in pieces", said("\n</th", "ink>\n", "\nHello ", "there"), STOP, DONE),
    _ok("end of thoughts in one piece", whole("Hm.\n</think>\n\nHello there"), label=JSON),
    _ok("end of thoughts in one chunk", said("Hm.\n</think>\n\nHello there"), STOP, DONE),
    _ok("end of thoughts first", message_events(*anthropic.text(["</think>\n", "Hello ", "there"])), dialect=ANTHROPIC),
    _ok("end tag in a sentence", said("Hi. Use </think> here."), STOP, DONE, text="Hi. Use </think> here."),
    _ok(
        "end tag in code", whole("Close it with `</think>`.\nBye."), label=JSON, text="Close it with `</think>`.\nBye."
    ),
    *(
        _ok(f"end tag in {name}", *pieces, text=text, label=label)
        for name, text in (
            ("code", "So:\n\n```\nHm.\n\n</think>\n\nHi.\n```\nDone."),
            ("prose on its line", "Use:\n</think>\nand go on."),
            ("a list", "- <b>\n- </think>\n\nDone."),
        )
        for pieces, label in (
            ((whole(text),), JSON),
            ((said(*text.splitlines(keepends=True)), STOP, DONE), EVENTS),
        )
    ),
    _ok(
        "tags on their lines later",
        whole("So:\n<think>\nHm.\n</think>\nDone."),
        label=JSON,
        text="So:\n<think>\nHm.\n</think>\nDone.",
    ),
    _ok("another tag first", said("<thin", "ker>Hello"), STOP, DONE, text="<thinker>Hello"),
    _ok("another tag in capitals", said("<THREAD>Hello"), STOP, DONE, text="<THREAD>Hello"),
    _fails("end of thoughts alone", said("</think>"), STOP, DONE, words="reasoning"),
]
TWICE = [start for _ in range(2) for start in ([anthropic.start()], anthropic.text(["Hello "]))]
OTHERS = [
    _ok(
        "empty with a reason and an id",
        chunk(role="assistant", content="", id="m1", metadata={"a": 1}),
        STOP,
        DONE,
        text="",
    ),
    _ok(
        "NaN beside the text",
        said("Hello "),
        b'data: {"choices":[{"delta":{"content":"there"},"logprobs":NaN}],"x":-Infinity}\n\n',
        STOP,
        DONE,
    ),
    _fails("half an event", said("Hello "), b'data: {"choices":[{"delta":{"content":"th\n\n', text="Hello "),
    _calls("name with white space", call(CITY, name=" weather\n", id="a"), chunk("tool_calls"), DONE),
    _fails(
        "text of JSON for an event", said("Hello "), b'data: "the GPU is on fire"\n\n', text="Hello ", words="on fire"
    ),
    _ok("event named done", said(*SAID), STOP, b"event: done\ndata: {}\n\n", DONE),
    _fails("completion without choices", b'{"object":"chat.completion","choices":[],"usage":{}}', label=JSON),
    _ok(
        "reasoning in messages that grow",
        *(
            sse({"choices": [{"message": {"content": text, "reasoning_content": "Hm."}}]})
            for text in ("", "Hello ", "Hello there")
        ),
        DONE,
    ),
    _fails(
        "only reasoning in messages",
        *(
            sse({"choices": [{"message": {"content": "", "reasoning_content": text}, "finish_reason": reason}]})
            for text, reason in (("H", None), ("Hm.", "stop"))
        ),
        DONE,
        words="reasoning",
    ),
    _calls(
        "empty object before the arguments", call("{}", name="weather", id="a"), call(CITY), chunk("tool_calls"), DONE
    ),
    _calls(
        "empty object before pieces", call("{}", name="weather", id="a"), *map(call, HALVES), chunk("tool_calls"), DONE
    ),
    _calls(
        "arguments whole after their pieces",
        call(HALVES[0], name="weather", id="a"),
        call(HALVES[1]),
        call(CITY),
        chunk("tool_calls"),
        DONE,
    ),
    _fails(
        "two different arguments", call(CITY, name="weather", id="a"), call('{"city":"Hue"}'), chunk("tool_calls"), DONE
    ),
    _calls(
        "one call that is no list",
        chunk(tool_calls={"id": "a", "function": {"name": "weather", "arguments": CITY}}),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "arguments as an object",
        sse(
            {
                "choices": [
                    {
                        "delta": {
                            "tool_calls": [{"id": "a", "function": {"name": "weather", "arguments": {"city": "Hanoi"}}}]
                        }
                    }
                ]
            }
        ),
        chunk("tool_calls"),
        DONE,
    ),
    _calls(
        "index as a text",
        call(HALVES[0], name="weather", id="a", index="0"),
        call(HALVES[1], index="0"),
        chunk("tool_calls"),
        DONE,
    ),
    _fails(
        "call without a function",
        chunk(tool_calls=[{"index": 0, "id": "a", "function": None}]),
        chunk("tool_calls"),
        DONE,
    ),
    _fails("calls that are null", chunk(tool_calls=[None]), chunk("tool_calls"), DONE),
    _calls(
        "arguments with white space around",
        call(f"\n {CITY} \n", name="weather", id="a"),
        chunk("tool_calls"),
        DONE,
        calls=(("weather", f"\n {CITY} \n"),),
    ),
    *(
        _fails(f"only {name}", chunk(role="assistant", content="", **{name: "Hm."}), STOP, DONE, words="other kinds")
        for name in ("thinking", "reasoning_text", "audio", "images")
    ),
    _ok("unknown fields beside text", chunk(content="Hello ", images=[{}]), said("there"), STOP, DONE),
    _ok(
        "list of chunks",
        json.dumps([json.loads(one[6:]) for one in (said("Hello "), said("there"), STOP)]).encode(),
        label=JSON,
    ),
    _fails("list of chunks, cut", json.dumps([json.loads(one[6:]) for one in (said("Hello "),)]).encode(), text=None),
    _ok("events without blank lines", HELLO.replace(b"\n\n", b"\n")),
    _ok(
        "event over several lines",
        b"".join(
            b"data: " + line + b"\n"
            for line in json.dumps(json.loads(said("Hello there")[6:]), indent=1).encode().splitlines()
        )
        + b"\n",
        STOP,
        DONE,
    ),
    _ok("thoughts twice", said("<think>Hm.</think>\n<think>", "Hm again.</think>Hello ", "there"), STOP, DONE),
    _ok("less-than sign after thoughts", said("<think>Hm.</think>", "<"), STOP, DONE, text="<"),
    _ok(
        "thoughts of an open model",
        said(
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant",
            "<|channel|>final<|message|>",
            "Hello ",
            "there",
        ),
        STOP,
        DONE,
    ),
    _ok("final channel only", said("<|channel|>final", "<|message|>Hello there"), STOP, DONE),
    _ok("thoughts in other tags", said("<|START_THINKING|>Hm.<|END_THINKING|>Hello there"), STOP, DONE),
    _ok("thoughts in triangles", said("\u25c1think\u25b7Hm.\u25c1/think\u25b7Hello there"), STOP, DONE),
    _ok("length, then stop", said(*SAID), chunk("length"), STOP, DONE, reason="length"),
    _ok("filter, then stop", said(*SAID), chunk("content_filter"), STOP, DONE, reason="content_filter"),
    _ok(
        "stop with every chunk, then length",
        *(said(word, reason="stop") for word in SAID),
        chunk("length"),
        DONE,
        reason="length",
    ),
    _fails("stop, then error", said(*SAID), chunk("error"), DONE, text=None),
    _ok("delta null at the end", said(*SAID), sse({"choices": [{"delta": None, "finish_reason": "stop"}]}), DONE),
    _ok("text after the end mark", said(*SAID), STOP, DONE, said("Goodbye"), DONE),
    _fails("choices with null", sse({"choices": [None]}), DONE),
    _fails(
        "error in the delta's place",
        sse({"choices": [{"error": {"message": "the GPU is on fire"}}]}),
        DONE,
        words="on fire",
    ),
    _fails(
        "message of a proxy after text",
        said("Hello "),
        sse({"message": "Internal server error"}),
        DONE,
        text="Hello ",
        words="Internal server error",
    ),
    _fails("events of the other dialect", HI, text=None),
    _fails("chunks of the other dialect", HELLO, dialect=ANTHROPIC, text=None),
    _fails(
        "answer of Ollama's own API",
        b'{"message":{"role":"assistant","content":"Hello"},"done":true}\n',
        label="application/x-ndjson",
        text=None,
    ),
    _fails(
        "message that begins twice",
        framed(*(event for part in TWICE for event in part), *anthropic.end()),
        dialect=ANTHROPIC,
        text="Hello ",
    ),
    _ok(
        "message whose start comes twice",
        framed(anthropic.start(), anthropic.start(), *anthropic.text(list(SAID)), *anthropic.end()),
        dialect=ANTHROPIC,
    ),
    _ok("deltas without their block's start", message_events(*anthropic.text(list(SAID))[1:]), dialect=ANTHROPIC),
    _ok(
        "max_tokens, then end_turn",
        framed(anthropic.start(), *anthropic.text(list(SAID)), *anthropic.end("max_tokens")[:1], *anthropic.end()),
        dialect=ANTHROPIC,
        reason="length",
    ),
    _fails("block of a wrong kind", message_events(*anthropic.block(0, {"type": None}, [])), dialect=ANTHROPIC),
    _fails(
        "half of the input in the start",
        message_events(*tool_block(HALVES[0], HALVES[1]), reason="tool_use"),
        dialect=ANTHROPIC,
    ),
    _calls(
        "input whole after its pieces",
        message_events(*tool_block({}, *HALVES, CITY), reason="tool_use"),
        dialect=ANTHROPIC,
    ),
    _calls(
        "empty object before the input",
        message_events(*tool_block({}, "{}", *HALVES), reason="tool_use"),
        dialect=ANTHROPIC,
    ),
]
CALLS_END = (chunk("tool_calls"), DONE)
CLOCK_WEATHER: Calls = (("clock", "{}"), *WEATHER)
HUE = '{"city":"Hue"}'
TWO_CITIES: Calls = (*WEATHER, ("weather", HUE))
READS: Calls = (("read", "{}"), ("read_file", "{}"))


def function(name: str, arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    """A call as a message has it."""
    return {"function": {"name": name} | ({} if arguments is None else {"arguments": arguments}), **fields}


ON_TAGS = "Use <think>, <reasoning>, [THINK] and <|channel|>."
MANY_TAGS = "```\n" + "</think>\n\n" * 20_000 + "<think " * 20_000
MENTIONS = [
    _ok("very many tags in code", whole(MANY_TAGS), label=JSON, text=MANY_TAGS),
    *(
        row
        for name, text, fields in (
            ("indented by spaces", "It ends with\n\n    </think>\n\nand then the answer.", {}),
            ("indented by a tab", "It ends with\n\n\t</think>\n\nand then the answer.", {}),
            ("in a fence of tildes", "So:\n\n~~~\nHm.\n</think>\n\n~~~\nDone.", {}),
            ("in a longer fence", "````\n```\n</think>\n\n```\n````\nok", {}),
            ("in a fence with an inner mark", "```md\nlook: ```\n</think>\n\n```\nok", {}),
            ("in a fence without an end", "```xml\n</think>\n\nDone.", {}),
            ("after an opening with attributes", 'Use\n<think mode="x">\nHm.\n</think>\n\nlike so.', {}),
            ("first in a sentence", "</think> is the closing tag.", {}),
            ("in lower-case brackets", "[Think] of a number between 1 and 10.", {}),
            ("closing bracket in lower case", "So:\n\n[/think]\n\nDone.", {}),
            ("by itself, asked for", "It is:\n\n</think>\n\nand no other.", {"asked": {Role.USER: ON_TAGS}}),
            ("alone, asked for", "</think>", {"asked": {Role.USER: "Write </think>"}}),
            ("asked for by the system", "<reasoning>2+2</reasoning>\n<answer>4</answer>", {"system": ON_TAGS}),
            ("asked for in capitals", "<THINK>Hm.</THINK>\nDone.", {"system": ON_TAGS}),
            ("in brackets, asked for", "[THINK] opens them.", {"asked": {Role.USER: ON_TAGS}}),
            ("of another name is no reason", "Hello there", {"system": "Use <thinking>."}),
        )
        for row in (
            _ok(
                f"tag {name}",
                *(said(*text[at : at + 5]) for at in range(0, len(text), 5)),
                STOP,
                DONE,
                text=text,
                **fields,
            ),
            _ok(f"tag {name}", whole(text), label=JSON, text=text, **fields),
            _ok(f"tag {name}", message_events(*anthropic.text(list(text))), dialect=ANTHROPIC, text=text, **fields),
        )
    ),
    _ok(
        "thoughts in other tags than asked for",
        said("<think>Hm.</think>\nHello there"),
        STOP,
        DONE,
        system="<reasoning>",
    ),
    _ok(
        "thoughts in tags of earlier answers",
        said("<think>Hm.</think>\nHello there"),
        STOP,
        DONE,
        asked={Role.USER: "Hi", Role.ASSISTANT: "<think>Hm.</think>Hi"},
    ),
    *(
        _ok(f"end of thoughts {name}", whole(f"{text}\n\nHello there"), label=JSON)
        for name, text in (
            ("after code", "```\nx\n```\n</think>"),
            ("after a tag in code", "```\n</think>\n\n```\n</think>"),
            ("in brackets", "Hm.\n[/THINK]"),
            ("indented by three", "Hm.\n   </think>"),
            ("in its own line", "</think>  "),
        )
    ),
    *(
        _ok(f"open model: {start}", said(*start, "Hello ", "there"), STOP, DONE)
        for start in (
            "<|start|>assistant<|channel|>final<|message|>",
            "<|start|>assistant<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>",
            "<|channel|>final <|constrain|>json<|message|>",
            "<|channel|>analysis<|message|>Hm.<|end|><|channel|>final <|constrain|>json<|message|>",
        )
    ),
    _ok("open model's tag asked for", said("<|channel|>final<|message|>"), STOP, DONE, text=None, system=ON_TAGS),
]
NO_ERRORS: tuple[Any, ...] = (
    *(None, {}, "", False, 0, [], "success", {"code": 0, "message": ""}, {"code": 0, "message": "success"}),
    *({"message": "", "type": "", "param": "", "code": None}, {"code": "0", "errors": [{"message": None}]}),
)
NO_STATUSES: tuple[dict[str, Any] | None, ...] = (
    {"status_code": "0", "status_msg": "success"},
    {"status_code": 0},
    {},
    None,
)
SUCCESSES: tuple[dict[str, Any], ...] = (
    *({"msg": "success"}, {"status": 200, "message": "OK"}, {"status": 200, "message": "finished"}),
    *({"code": 10000, "msg": "Success", "success": True}, {"message": "ok", "code": "Success"}),
)
FAILURES = ({"type": "overloaded_error", "message": "no"}, {"type": "status_error", "message": "no"}, {"msg": "no"})
PROGRESS = (
    {"type": "status", "message": "loading"},
    {"type": "ping", "message": "hi"},
    {"type": "queue.info", "msg": "1"},
)


def with_member(payload: bytes, **members: Any) -> bytes:
    """The JSON completion or event with more members."""
    is_event = payload.startswith(b"data: ")
    event = json.loads(payload[6:] if is_event else payload) | members
    return sse(event) if is_event else json.dumps(event).encode()


SAYING_NOTHING = [
    *(
        row
        for error in NO_ERRORS
        for row in (
            _ok(
                f"error {error!r}",
                *(with_member(one, error=error) for one in (said("Hello "), said("there"), STOP)),
                DONE,
            ),
            _ok(f"error {error!r}", with_member(whole("Hello there"), error=error), label=JSON),
            _ok(f"error {error!r} of the choice", choices({**choice(0, "Hello there"), "error": error}), STOP, DONE),
            _ok(
                f"error {error!r}",
                framed({"type": "status", "error": error}, anthropic.start()),
                framed(*anthropic.text(list(SAID)), *anthropic.end()),
                dialect=ANTHROPIC,
            ),
        )
    ),
    *(_ok(f"base_resp {one}", with_member(said("Hello there"), base_resp=one), STOP, DONE) for one in NO_STATUSES),
    *(
        _ok(f"usage with {one}", said(*SAID), STOP, usage_chunk(usage=COUNTED, **one), DONE, usage=(7, 5))
        for one in SUCCESSES
    ),
    *(_fails(f"event {one}", said("Hello "), sse(one), STOP, DONE, text="Hello ", words="no") for one in FAILURES),
    *(_ok(f"event {one}", sse(one), said(*SAID), STOP, DONE) for one in PROGRESS),
    *(
        _fails(
            f"event: error with {data!r}", said("Hello "), b"event: error\ndata: " + data + b"\n\n", DONE, text="Hello "
        )
        for data in (b"", b"{}", b'{"error":{"message":""}}', b'{"error":null}')
    ),
    *(
        _fails(f"error {error!r}", said("Hello "), sse({"error": error}), STOP, DONE, text="Hello ")
        for error in (True, {"code": 1}, {"code": 0, "message": "no"}, "no", {"errors": [{"message": "no"}]})
    ),
]
CALL_OF_CHOICE = {"tool_calls": [{"index": 0, "id": "a", **function("weather", CITY)}]}
ONE_CHOICE = [
    *(
        _calls(
            f"text and call in two choices with index {indexes}",
            json.dumps(
                {
                    "choices": [
                        {"message": {"content": "Hello there"}, "finish_reason": reasons[0], **indexes},
                        {"message": CALL_OF_CHOICE, "finish_reason": reasons[1], **indexes},
                    ]
                }
            ).encode(),
            label=JSON,
            text="Hello there",
        )
        for indexes in ({}, {"index": 0}, {"index": 1}, {"index": None})
        for reasons in (("tool_calls", "tool_calls"), ("stop", "tool_calls"), (None, "stop"))
    ),
    _calls(
        "end and call in two choices of a stream",
        said(*SAID),
        choices({"index": 0, "delta": {}, "finish_reason": "tool_calls"}, {"index": 0, "delta": CALL_OF_CHOICE}),
        DONE,
        text="Hello there",
    ),
    _calls(
        "a call in each of two choices",
        choices(*({"delta": {"tool_calls": [one]}} for one in (function("clock", "{}"), function("weather", CITY)))),
        *CALLS_END,
        calls=CLOCK_WEATHER,
    ),
    _ok("two texts without indexes", choices(choice(None, "Hello there", "stop"), choice(None, "Bye", "stop")), DONE),
    _ok(
        "cut in one of two choices",
        choices(choice(0, "Hello there", "length"), choice(0, "", "stop")),
        DONE,
        reason="length",
    ),
]
STOPPED = (
    *("FinishReason.STOP", "REASON_STOP", "FINISH_REASON_STOP", "FinishReason.FINISH_REASON_STOP", "finishReason.stop"),
    *("stopped", "end_of_sequence", "eosFound", "stop\n", "Stop", "stop_sequence", "stop_reason_stop"),
)
CUT_SHORT = (
    *("FinishReason.MAX_TOKENS", "FINISH_REASON_MAX_TOKENS", "max_new_tokens", "token_limit_reached", "maxTokens"),
    *("REASON_MAX_LEN", "length_limit"),
)
NO_REASONS = ("FINISH_REASON_UNSPECIFIED", "FinishReason.FINISH_REASON_UNSPECIFIED", "Reason.NONE", None, "")
LATE = [
    *(row for reason in STOPPED for row in _endings(reason, _ok)),
    *(row for reason in CUT_SHORT for row in _endings(reason, _ok, reason="length")),
    *(_fails(f"only {reason}", said(*SAID), chunk(reason), text="Hello there") for reason in NO_REASONS),
    *(_ok(f"completion that ends with {one}", whole("Hello there", one), label=JSON) for one in NO_REASONS),
    *(
        _calls(f"completion with {name} and no reason", whole(None, None, tool_calls=[made]), label=JSON, calls=calls)
        for name, made, calls in (
            ("a call", function("weather", CITY), WEATHER),
            ("an empty call", function("clock"), (("clock", "{}"),)),
        )
    ),
    _fails("completion with half a call and no reason", whole(None, None, tool_calls=[function("x", "{")]), label=JSON),
    _ok("completion of the least", b'{"choices":[{"message":{"content":"Hello there"}}]}', label=JSON),
    _fails("empty completion without a reason", whole("", None), label=JSON),
    _fails("completion as an event, without a reason", b"data: " + whole("Hello there", None) + b"\n\n", text=None),
    _fails("one chunk as a document", said("Hello there")[6:], label=JSON, text=None),
    _fails("messages in lines, without a reason", (whole("Hello ", None) + b"\n") * 2, text=None),
    _fails(
        "message without a stop reason",
        json.dumps({"type": "message", "content": [GIVEN_TEXT]}).encode(),
        text=None,
        dialect=ANTHROPIC,
    ),
    *(
        _ok(
            f"counts in two chunks: {first}, {last}",
            usage_chunk(usage=first),
            said(*SAID),
            STOP,
            usage_chunk(usage=last),
            DONE,
            usage=(7, 5),
        )
        for first, last in (
            ({"prompt_tokens": 7, "completion_tokens": 0}, {"prompt_tokens": 0, "completion_tokens": 5}),
            ({"prompt_tokens": 7, "completion_tokens": 1}, {"completion_tokens": 5}),
            (COUNTED, {"prompt_tokens": None}),
        )
    ),
    *(
        _ok(f"start {start!r} repeated", message_events(*said_twice(start, *deltas)), dialect=ANTHROPIC, text=text)
        for start, deltas, text in (
            ("Hello", ("Hello", " there"), "Hello there"),
            ("Hello", ("Hello there",), "Hello there"),
            ("Hello", ("Hel", "lo", " there"), "Hello there"),
            ("Hello", (" there",), "Hello there"),
            ("very ", ("very ", "good"), "very very good"),
            ("Hello there, all of you. ", ("Hello there, all of you. ", "Bye"), "Hello there, all of you. Bye"),
        )
    ),
    *(
        _fails(
            f"list of errors after {start!r}",
            *(start, b'{"error": {"code": 429, "message": "too many"}}\n]\n'),
            label=JSON,
            error="rate_limit_exceeded",
            words="too many",
        )
        for start in (b"[", b"[\n  ", b"\n[ ")
    ),
    _ok(
        "list of chunks, indented",
        b"[",
        0.1,
        b"\n",
        0.1,
        json.dumps([json.loads(one[6:]) for one in (said("Hello "), said("there"), STOP)], indent=1).encode()[1:],
        label=JSON,
    ),
]
TWO_VERSIONS = [
    *(
        _ok(f"message {name}", *(chunk(reasoning_content="Hm."), said(*texts)), with_message(message), DONE, text=text)
        for name, texts, message, text in (
            ("with thoughts", SAID, "<think>Hm.</think>\n\nHello there", "Hello there"),
            ("with thoughts and more", ("Hello",), "<think>Hm.</think>\n\nHello there", "Hello there"),
            ("with more and other white space", ("Hello\n",), "Hello there", "Hello\n there"),
            ("with the end of thoughts", SAID, "Hm.\n</think>\n\nHello there", "Hello there"),
            ("without a replaced character", ("Hello th\ufffd",), "Hello th\u00e9", "Hello th\ufffd"),
            ("without replaced characters", ("a\ufffd\ufffd", "b"), "a\u4f60b c", "a\ufffd\ufffdb c"),
            ("with more after a replaced character", ("th\ufffd",), "th\u00e9 and so on", "th\ufffd and so on"),
            ("with a replaced character", ("Hello th\u00e9",), "Hello th\ufffd", "Hello th\u00e9"),
            ("composed", ("Cafe\u0301",), "Caf\u00e9", "Cafe\u0301"),
            ("decomposed, with more", ("Caf\u00e9",), "Cafe\u0301 au lait", "Caf\u00e9 au lait"),
            ("that is empty", SAID, "", "Hello there"),
            ("with special characters", ("a.b (c)\n",), "a.b (c)", "a.b (c)\n"),
        )
    ),
    _ok(
        "thoughts in deltas, not in the message", said("<think>Hm.</think>\n", *SAID), with_message("Hello there"), DONE
    ),
    *(
        _fails(f"{first!r}, then {last!r}", said(first), with_message(last), DONE, text=first)
        for first, last in (
            ("Hello a.c", "Hello abc"),
            ("th\ufffdre", "Hi th\u00e9re"),
            ("Yes", "<think>Yes</think>No"),
        )
    ),
]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,xx"}}
PARTS = [
    *(
        row
        for name, part in (
            ("value of a text", {"type": "text", "text": {"value": "Hello there", "annotations": []}}),
            ("content of a text", {"type": "text", "content": "Hello there"}),
            ("value", {"value": "Hello there"}),
            ("value of an output", {"type": "output_text", "value": "Hello there"}),
            ("list in a part", {"content": [{"type": "text", "text": "Hello there"}]}),
            ("unknown part", {"type": "paragraph", "text": "Hello there"}),
        )
        for row in (
            _ok(f"{name} as content", chunk(content=part), STOP, DONE),
            _ok(f"{name} in a part", chunk(content=[None, part]), STOP, DONE),
            _ok(f"{name} in a part", whole("", content=[part, PICTURE]), label=JSON),
        )
    ),
    *(
        row
        for name, part, words in (
            ("picture", PICTURE, "other kinds"),
            ("JSON", {"type": "json", "json": {"a": 1}}, "other kinds"),
            ("result of a tool", {"type": "tool_result", "content": "Hello there"}, "other kinds"),
            ("part without anything", {"type": "text"}, "other kinds"),
            ("summary of reasoning", {"type": "reasoning_text", "text": "Hm."}, "reasoning"),
        )
        for row in (
            _fails(f"{name} alone", chunk(content=[part]), STOP, DONE, words=words),
            _fails(f"{name} alone", whole("", content=[part]), label=JSON, words=words),
        )
    ),
    _fails("number as content", chunk(content=42), STOP, DONE),
    _ok("empty text in a part", chunk(content=[{"type": "text", "text": ""}]), STOP, DONE, text=""),
    _fails(
        "delta of an unknown kind alone",
        message_events(*anthropic.block(0, {"type": "text", "text": ""}, [{"type": "banana_delta", "text": "x"}])),
        dialect=ANTHROPIC,
        words="other kinds",
    ),
    _ok(
        "delta without a kind",
        message_events(*anthropic.block(0, {"type": "text", "text": ""}, [{"text": "Hello there"}])),
        dialect=ANTHROPIC,
    ),
]
SEPARATE_CALLS = [
    *(
        _calls(f"another name after {name}", *pieces, *CALLS_END, calls=CLOCK_WEATHER)
        for name, pieces in (
            ("no arguments", (call("", name="clock"), call(CITY, name="weather"))),
            ("null", (call(None, name="clock"), call(CITY, name="weather"))),
            ("no arguments, one id", (call("", name="clock", id="a"), call(CITY, name="weather"))),
            ("no arguments, its own later", (call("", name="clock"), call("", name="weather"), call(CITY))),
            ("no arguments, in pieces", (call("", name="clock"), call(HALVES[0], name="weather"), call(HALVES[1]))),
            (
                "no arguments, under one id",
                (call("", name="clock", id="a"), call("", name="weather", id="a"), call(CITY)),
            ),
            (
                "arguments, under one id",
                (call("{}", name="clock", id="a"), call("", name="weather", id="a"), call(CITY)),
            ),
            (
                "no arguments, in one chunk",
                (chunk(tool_calls=[function("clock", "", index=0), function("weather", CITY, index=0)]),),
            ),
        )
    ),
    _calls("name that begins another", call("", name="read"), call("{}", name="read_file"), *CALLS_END, calls=READS),
    _calls(
        "name that begins another, one id",
        call("", name="read", id="a"),
        call("{}", name="read_file", id="a"),
        *CALLS_END,
        calls=READS,
    ),
    _calls("name that another begins", call("", name="read"), call("{}", name="_file"), *CALLS_END, calls=READS[1:]),
    _calls(
        "two calls of one id, index and name",
        call(CITY, name="weather", id="a"),
        call(HUE, name="weather", id="a"),
        *CALLS_END,
        calls=TWO_CITIES,
    ),
    _calls("call repeated", call(CITY, name="weather", id="a"), call(CITY, name="weather", id="a"), *CALLS_END),
    _calls(
        "empty object, then the arguments with the name",
        call("{}", name="weather", id="a"),
        call(CITY, name="weather", id="a"),
        *CALLS_END,
    ),
    _calls(
        "arguments that grow",
        call('{"ci', name="weather", id="a"),
        call(HALVES[0]),
        call(HALVES[0] + '"Ha'),
        call(CITY),
        *CALLS_END,
    ),
    _fails(
        "arguments that grow, cut",
        call('{"ci', name="weather", id="a"),
        call(HALVES[0]),
        *CALLS_END,
        words="not a JSON object",
    ),
    *(
        _calls(f"message with {name}", whole(None, "tool_calls", tool_calls=made), label=JSON, calls=calls)
        for name, made, calls in (
            ("one index", [function("clock", "", index=0), function("weather", CITY, index=0)], CLOCK_WEATHER),
            (
                "one id",
                [function("weather", CITY, id="a"), function("weather", HUE, id="a")],
                (*WEATHER, ("weather", HUE)),
            ),
            ("the same call twice", [function("weather", CITY, id="a")] * 2, WEATHER * 2),
            ("the same empty call twice", [function("clock", id="a")] * 2, (("clock", "{}"),) * 2),
            ("the same index twice", [function("weather", CITY, id="a", index=0)] * 2, WEATHER * 2),
            ("names alike", [function("read", "", id="a"), function("read_file", "{}", id="a")], READS),
            ("calls without ids", [function("clock"), function("weather", CITY)], CLOCK_WEATHER),
        )
    ),
]
SMILE = "\U0001f600"
SURROGATES = [
    *(
        row
        for name, texts, text in (
            ("pair in two texts", ("Hi \ud83d", "\ude00!"), f"Hi {SMILE}!"),
            ("pair alone in two texts", ("\ud83d", "\ude00"), SMILE),
            ("half at the end", ("Hi ", "\ud83d"), "Hi \ufffd"),
            ("half before text", ("Hi ", "\ud83d", "!"), "Hi \ufffd!"),
            ("half alone", ("\ud83d",), "\ufffd"),
            ("half amid text", ("Hi \ud83d!", " Bye"), "Hi \ufffd! Bye"),
            ("second half alone", ("Hi ", "\ude00"), "Hi \ufffd"),
        )
        for row in (
            _ok(name, chunk(role="assistant", content=""), *map(said, texts), STOP, DONE, text=text),
            _ok(name, message_events(*anthropic.text(list(texts))), dialect=ANTHROPIC, text=text),
            _ok(f"{name}, in one piece", whole("".join(texts)), label=JSON, text=text),
        )
    ),
    _ok(
        "half in a list of chunks",
        json.dumps([json.loads(one[6:]) for one in (said("\ud83d"), said("\ude00"), STOP)]).encode(),
        label=JSON,
        text=SMILE,
    ),
    _calls(
        "pair in two pieces of arguments",
        call('{"city":"\ud83d', name="weather", id="a"),
        call('\ude00"}'),
        chunk("tool_calls"),
        DONE,
        calls=(("weather", f'{{"city":"{SMILE}"}}'),),
    ),
    _calls(
        "pair in two pieces of input",
        message_events(*tool_block({}, '{"city":"\ud83d', '\ude00"}'), reason="tool_use"),
        dialect=ANTHROPIC,
        calls=(("weather", f'{{"city":"{SMILE}"}}'),),
    ),
]

_OPEN = ("Hm", ".", "\n", "</think>", "\n\n", *SAID)
OPEN_THOUGHTS = {
    OPENAI: _ok("thoughts that the template opens", said(*_OPEN[:2]), 0.1, said(*_OPEN[2:]), STOP, DONE),
    ANTHROPIC: _ok("thoughts that the template opens", message_events(*anthropic.text(list(_OPEN)))),
}
NO_THOUGHTS = {OPENAI: _ok("no thoughts", HELLO), ANTHROPIC: _ok("no thoughts", HI)}

CASES: list[WireCase] = [
    *REPEATED,
    *REASONS,
    *ERRORS,
    *EMPTY,
    *LABELS,
    *KEEP_ALIVES,
    *CALLS,
    *COMPRESSED,
    *MISLABELLED,
    *TEXTS,
    *COUNTS,
    *CONTRADICTIONS,
    *DOUBLED,
    *WORDED,
    *ENDS,
    *UNPROVEN,
    *PIECES_OF_NAMES,
    *THOUGHTS,
    *OTHERS,
    *SURROGATES,
    *TWO_VERSIONS,
    *LATE,
    *ONE_CHOICE,
    *SAYING_NOTHING,
    *MENTIONS,
    *PARTS,
    *SEPARATE_CALLS,
    *_reasoning(),
]
