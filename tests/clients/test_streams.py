"""The streams of the client packages: what they read, what they leave out, and when they connect again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from support.chat import ask, chunks_of
from support.client_packages import prepare_program
from support.cutting_relay import SteppingRelay
from support.documents import succeed
from support.live import LiveGateway, live_gateway, stubbed_config
from support.scripted_gateway import ScriptedGateway, answer, stream
from support.upstream import Exchange, Upstream

from service.api.http.chat_chunks import DONE, ChunkEncoder
from service.core.messages import ToolCall, Usage

#: The languages, and the prefix of the kinds of their streams.
READERS = [("python", ""), ("python", "async-"), ("typescript", ""), ("go", "")]
#: What `str.splitlines` takes for the ends of lines, and characters of several bytes.
TEXT = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg 𝄞é"
PAGE = "<html><h1>Sorry</h1></html>"
SHUTTING_DOWN = json.dumps(
    {"error": {"message": "Wait.", "type": "service_unavailable_error", "param": None, "code": "shutting_down"}}
)
ENCODER = ChunkEncoder("chatcmpl_1", 1, "openclaw", include_usage=False)
FUNCTIONS: Any = [{"type": "function", "function": {"name": name}} for name in ("weather", "time")]


@dataclass(frozen=True)
class Reader:
    """The program of a language that reads streams."""

    language: str
    prefix: str
    command: tuple[str, ...]
    environment: dict[str, str]

    def read(self, url: str, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the events of streams, one after the other, and how they failed."""
        arguments = [url, f"{self.prefix}{kind}", str(count)]
        printed = succeed([*self.command, *arguments], self.environment, Path.cwd())
        return [json.loads(line) for line in printed.strip().split("\n")]


@pytest.fixture(scope="session")
def prepare(
    build: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[tuple[str, ...], dict[str, str]]]:
    """Return a function that returns the command of a language, and its environment."""

    @cache
    def prepare_once(language: str) -> tuple[tuple[str, ...], dict[str, str]]:
        package = build(language)
        command = prepare_program(language, "read_streams", package, tmp_path_factory.mktemp(language))
        return tuple(command), {**os.environ, "PYTHONPATH": str(package)}

    return prepare_once


@pytest.fixture(params=READERS, ids="".join)
def reader(request: pytest.FixtureRequest, prepare: Callable[[str], tuple[tuple[str, ...], dict[str, str]]]) -> Reader:
    language, prefix = request.param
    return Reader(language, prefix, *prepare(language))


@pytest.fixture(scope="module")
def calling(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway whose model thinks, says something and calls two functions, all in pieces."""
    module_upstream.answers["calls"] = _call
    config = stubbed_config(module_upstream.url, "stub/calls")
    with live_gateway(tmp_path_factory.mktemp("calling"), config) as running:
        yield running


def _call(exchange: Exchange) -> None:
    exchange.head()
    for delta in ({"reasoning_content": "Hm 𝄞. "}, {"content": "Ở Hà "}, {"content": "Nội 🎼"}):
        exchange.event(delta)
    for index, (name, pieces) in enumerate(
        (("weather", ('{"city": "Par', "is, Fra", 'nce 𝄞"}')), ("time", ("{", '"zone": ', "1}")))
    ):
        opening = {"index": index, "id": f"c{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        exchange.event({"tool_calls": [opening]})
        for piece in pieces:
            exchange.event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            exchange.wait(0.02)  # so that not all of them come in one event
    exchange.end("tool_calls")


def fold(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a program makes of chunks, with every part as often as it came."""
    found: dict[str, Any] = {"text": "", "reasoning": "", "calls": {}, "roles": 0, "ends": [], "usage": []}
    for chunk in chunks:
        found["usage"] += [chunk["usage"]["total_tokens"]] if chunk.get("usage") else []
        for choice in chunk["choices"]:
            delta = choice["delta"]
            found["roles"] += "role" in delta
            found["text"] += delta.get("content") or ""
            found["reasoning"] += delta.get("reasoning_content") or ""
            found["ends"] += [choice["finish_reason"]] if choice["finish_reason"] else []
            for call in delta.get("tool_calls") or ():
                known = found["calls"].setdefault(str(call["index"]), ["", 0, ""])
                known[0] += call["function"].get("name") or ""
                known[1] += "id" in call
                known[2] += call["function"]["arguments"]
    return found


def test_chat_stream_goes_on_after_every_event(reader: Reader, calling: LiveGateway) -> None:
    headers = {"x-openclaw-on-disconnect": "continue", "x-openclaw-events": "reasoning"}
    with calling.client() as client:
        asked = {"tools": FUNCTIONS, "stream_options": {"include_usage": True}}
        whole = chunks_of(ask(client, "hi", headers=headers, stream=True, **asked))
    expected = fold(whole)
    assert expected["reasoning"] == "Hm 𝄞. "
    calls = {"0": ["weather", 1, '{"city": "Paris, France 𝄞"}'], "1": ["time", 1, '{"zone": 1}']}
    assert expected["calls"] == calls
    with SteppingRelay(calling.address) as relay:
        for place, found in enumerate(reader.read(relay.url, "chat", len(whole) + 1)):
            assert found["error"] is None
            assert fold(found["events"]) == expected, place


def test_calls_go_on_where_they_were(reader: Reader) -> None:
    weather, hour = ToolCall("a", "weather", '{"city": "Paris, France 𝄞"}'), ToolCall("b", "time", '{"zone": 1}')
    one, two, three, four = (ChunkEncoder("chatcmpl_1", 1, "openclaw", include_usage=True) for _ in range(4))
    connections = [
        [one.opening(), one.text("Hi", 4), one.arguments(0, "a", "weather", '{"city": "Par')],
        [two.opening(), two.arguments(0, "a", "weather", '{"ci'), two.arguments(0, "a", "weather", 'ty": "Paris, F')],
        [three.opening(), three.arguments(1, "b", "time", '{"zo'), three.call(0, weather, 5)],
        [four.opening(), four.call(1, hour, 6), four.end("tool_calls", Usage(1, 2), 8)],
    ]
    with ScriptedGateway([*map(partial(stream, is_whole=False), connections)]) as gateway:
        [found] = reader.read(gateway.url, "chat")
    assert found["error"] is None
    calls = {"0": ["weather", 1, weather.arguments], "1": ["time", 1, hour.arguments]}
    said = {"text": "Hi", "reasoning": "", "calls": calls, "roles": 1, "ends": ["tool_calls"], "usage": [3]}
    assert fold(found["events"]) == said
    assert [request.line.partition("after=")[2][:1] for request in gateway.requests] == ["", "4", "4", "5"]


def lines_of(kind: str) -> str:
    """Return a stream with `TEXT`, its lines separated by line feeds."""
    if kind == "chat":
        return (ENCODER.text(TEXT, 3) + DONE).decode()
    if kind == "response":
        position = {"item_id": "m", "output_index": 0, "content_index": 0}
        event = {"type": "response.output_text.delta", "sequence_number": 3, "delta": TEXT, "logprobs": [], **position}
        return f"data: {json.dumps(event, ensure_ascii=False)}\n\n{DONE.decode()}"
    text = {"type": "text.delta", "sequence_number": 8, "text": TEXT}
    end = {"type": "run.ended", "sequence_number": 9, "state": "ok", "finish_reason": "stop", "error": None}
    return "".join(
        f": \n\nid: {event['sequence_number']}\nevent: {event['type']}\n"
        f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        for event in (text, end)
    )


@pytest.mark.parametrize("kind", ["run", "chat", "response"])
def test_lines_end_at_returns_and_line_feeds_only(reader: Reader, kind: str) -> None:
    text = lines_of(kind)
    texts = [text.replace("\n", end) for end in ("\n", "\r", "\r\n")]
    pieces = [[one.encode()[place : place + 1] for place in range(len(one.encode()))] for one in texts]
    with ScriptedGateway([*map(stream, pieces), stream([texts[2].encode()])]) as gateway:
        found = reader.read(gateway.url, kind, 4)
    for one in found:
        assert one["error"] is None
        first = one["events"][0]
        assert TEXT in (
            first.get("text"),
            first.get("delta"),
            first.get("choices", [{}])[0].get("delta", {}).get("content"),
        )
    assert len({json.dumps(one) for one in found}) == 1


def test_stream_of_a_run_that_is_over_is_empty(reader: Reader) -> None:
    with ScriptedGateway([answer("204 No Content")]) as gateway:
        assert reader.read(f"{gateway.url}/", "run") == [{"events": [], "error": None}]
    [request] = gateway.requests
    assert request.line == "GET /v1/runs/one/events HTTP/1.1"
    assert "last-event-id: 7" in request.head


@pytest.mark.parametrize("kind", ["chat", "response", "operation"])
@pytest.mark.parametrize("body", [PAGE, '{"detail": "no"}', "[]", ""])
def test_error_of_a_proxy_has_the_phrase_of_its_status(reader: Reader, kind: str, body: str) -> None:
    if kind == "operation" and (reader.language == "go" or reader.prefix):
        pytest.skip("the generated operations for Go have errors of their own; those of Python are shared")
    with ScriptedGateway([answer("503 Service Unavailable", body)]) as gateway:
        [found] = reader.read(gateway.url, kind)
    error = found["error"]
    assert (error["code"], error["message"]) == ("internal_error", "503 Service Unavailable")
    assert error["status"] in (503, None)
    assert len(gateway.requests) == 1


def test_busy_gateway_is_asked_again_when_it_says(reader: Reader) -> None:
    role, said, end = ENCODER.opening(), ENCODER.text("Hi", 4), ENCODER.end("stop", Usage(), 5)
    answers = [
        stream([role, said], is_whole=False),
        answer("503 Service Unavailable", SHUTTING_DOWN, "Retry-After: 1"),
        answer("429 Too Many Requests", PAGE, "Retry-After: soon"),
        answer("502 Bad Gateway", PAGE),
        stream([role, end]),
    ]
    with ScriptedGateway(answers) as gateway:
        [found] = reader.read(gateway.url, "chat")
    assert found["error"] is None
    assert fold(found["events"]) == fold([json.loads(one[6:]) for one in (role, said, end.removesuffix(DONE))])
    busy, again = gateway.requests[1:3]
    assert again.at - busy.at >= 1
    assert busy.line.startswith("GET /v1/runs/chatcmpl_1/chat-stream?after=4&")
    if reader.language != "typescript":  # its numbers are not that exact
        assert json.loads(gateway.requests[0].body)["seed"] == 2**53 + 1


def test_stream_ends_with_the_error_that_stays(reader: Reader) -> None:
    role, busy = ENCODER.opening(), answer("503 Service Unavailable", SHUTTING_DOWN)
    with ScriptedGateway([*[stream([role], is_whole=False)] * 5, busy]) as gateway:
        [found] = reader.read(gateway.url, "chat")
    assert (found["error"]["status"], found["error"]["code"]) == (503, "shutting_down")
    assert (len(found["events"]), len(gateway.requests)) == (1, 6)
    with ScriptedGateway([stream([role], is_whole=False), answer("404 Not Found", PAGE)]) as gateway:
        [found] = reader.read(gateway.url, "chat")
    assert (found["error"]["status"], found["error"]["code"]) == (404, "internal_error")
