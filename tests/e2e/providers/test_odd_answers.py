"""Malformed provider responses through the endpoint: no internal error, no lost text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from support import upstream_answers_anthropic as anthropic
from support.chat import ask, error_of, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream
from support.upstream_answers import frame

FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    url = f"{module_upstream.url}?api-key=a-secret-of-the-query"
    config = stubbed_config(url, defaults={"timeoutSeconds": 40}, timeoutSeconds=3)
    with live_gateway(tmp_path_factory.mktemp("relay"), config) as running:
        yield running


@pytest.fixture
def client(relay: LiveGateway) -> Iterator[httpx.Client]:
    with relay.client() as connected:
        yield connected


@pytest.fixture
def play(client: httpx.Client, upstream: Upstream) -> Callable[..., httpx.Response]:
    """Have a provider give an answer of the test's own, and return what the caller gets."""

    def answer(provider: str, function: Callable[[Exchange], None], **fields: Any) -> httpx.Response:
        upstream.answers["odd"] = function
        return ask(client, "hi", headers={"x-openclaw-model": f"{provider}/odd"}, **fields)

    return answer


def telling(*events: Any, ending: bool = True) -> Callable[[Exchange], None]:
    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(b"".join(frame(event) for event in events))
        if ending:
            exchange.send(b"data: [DONE]\n\n")
        exchange.last_chunk()

    return answer


def delta(finish_reason: str | None = None, **told: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": told, "finish_reason": finish_reason}]}


def ended(stop_reason: Any = "end_turn", **usage: Any) -> list[dict[str, Any]]:
    message_delta = {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage}
    return [message_delta, {"type": "message_stop"}]


def called(call_id: Any = "toolu_1", name: Any = "weather", piece: Any = "{}") -> list[dict[str, Any]]:
    block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    return [*anthropic.block(0, block, [{"type": "input_json_delta", "partial_json": piece}]), *ended("tool_use")]


@pytest.mark.parametrize(
    "events",
    [
        ended(["end_turn"]),
        called(call_id={"a": 1}),
        called(name=["weather"]),
        called(name=None),
        called(piece=["{}"]),
    ],
)
def test_message_with_wrong_types_is_provider_error(
    play: Callable[..., httpx.Response], events: list[dict[str, Any]]
) -> None:
    response = play("claude", anthropic.telling(anthropic.start(), *events), tools=[FUNCTION])
    assert error_of(response)[:2] == (502, "provider_error")


@pytest.mark.parametrize(("told", "counted"), [(2**64 - 1, 2**53 - 1), (-5, 0), ("abc", 0), ([1], 0)])
def test_invalid_usage_does_not_lose_answer(play: Callable[..., httpx.Response], told: Any, counted: int) -> None:
    events = [anthropic.start(), *anthropic.text(["well"]), *ended(output_tokens=told)]
    usage = {"prompt_tokens": 1, "completion_tokens": told, "prompt_tokens_details": [1]}
    answers = [
        (play("claude", anthropic.telling(*events)), max(counted, 1)),  # the count at the start of the message stays
        (play("stub", telling(delta(content="well"), delta("stop"), {"choices": [], "usage": usage})), counted),
    ]
    for response, expected in answers:
        assert text_of(response) == "well"
        assert response.json()["usage"]["completion_tokens"] == expected


@pytest.mark.parametrize("lull", [b": ping\n\n", b""], ids=["comments", "silence"])
def test_complete_answer_ends_without_waiting_for_end_of_body(play: Callable[..., httpx.Response], lull: bytes) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(frame(delta(content="all of it")) + frame(delta("stop")))
        while True:
            if lull:
                exchange.send(lull)
            exchange.wait(0.2)

    began = time.monotonic()
    assert text_of(play("stub", answer)) == "all of it"
    assert time.monotonic() - began < 3  # the provider's limit


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("provider", ["claude", "stub"])
def test_last_event_without_blank_line_is_read(play: Callable[..., httpx.Response], provider: str, end: bytes) -> None:
    events = [anthropic.start(), *anthropic.text(["well"]), *ended()][:-1]
    if provider == "stub":
        events = [delta(content="we"), delta("stop", content="ll")]

    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(b"".join(map(frame, events)).rstrip(b"\n") + end)
        exchange.last_chunk()

    assert text_of(play(provider, answer)) == "well"


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["so \ud83d", "\ude00!"], "so \U0001f600!"),
        (["\ud83d", "", "\ude00\ud83d", "\ude00"], "\U0001f600\U0001f600"),
        (["a\ud83db", "\ude00c", "\ud83d", "x"], "a\ufffdb\ufffdc\ufffdx"),
        (["na\u00efve", "\U0001f600"], "na\u00efve\U0001f600"),
    ],
)
def test_split_characters_are_joined(play: Callable[..., httpx.Response], pieces: list[str], text: str) -> None:
    events = [delta(content=piece, reasoning_content=piece) for piece in pieces]
    assert text_of(play("stub", telling(*events, delta("stop")))) == text


def test_calls_without_index_and_id_are_separated_by_name(play: Callable[..., httpx.Response]) -> None:
    pieces = [("weather", '{"a":'), ("", "1}"), ("weather", "{}")]
    events = [delta(tool_calls=[{"function": {"name": name, "arguments": text}}]) for name, text in pieces]
    told = play("stub", telling(*events, delta("tool_calls")), tools=[FUNCTION]).json()["choices"][0]["message"]
    assert [call["function"]["arguments"] for call in told["tool_calls"]] == ['{"a":1}', "{}"]
    assert len({call["id"] for call in told["tool_calls"]}) == 2


@pytest.mark.parametrize(
    ("pieces", "arguments"),
    [
        ([("weather", '{"a":1}'), ("weather", '{"b":2}')], ['{"a":1}', '{"b":2}']),
        ([("weather", '{"a":'), ("", "1}"), ("weather", ""), ("", "")], ['{"a":1}']),
        ([("weather", '{"a":'), ("weather", '{"b":'), ("weather", "2}}")], ['{"a":{"b":2}}']),
        ([("weather", ""), ("weather", "{}"), ("weather", "")], ["{}"]),
        ([("weather", {"a": 1}), ("weather", {"b": 2})], ['{"a":1}', '{"b":2}']),
    ],
)
def test_calls_with_one_index_and_no_ids_are_separated_by_complete_arguments(
    play: Callable[..., httpx.Response], pieces: list[tuple[str, Any]], arguments: list[str]
) -> None:
    calls = [{"index": 0, "id": "", "function": {"name": name, "arguments": text}} for name, text in pieces]
    events = [delta(tool_calls=[call]) for call in calls]
    told = play("stub", telling(*events, delta("tool_calls")), tools=[FUNCTION]).json()["choices"][0]["message"]
    assert [call["function"]["arguments"] for call in told["tool_calls"]] == arguments


def test_legacy_function_call_is_accepted(play: Callable[..., httpx.Response]) -> None:
    pieces = [{"name": "weather", "arguments": '{"a":'}, {"arguments": "1}"}]
    events = [delta(function_call=piece) for piece in pieces]
    told = play("stub", telling(*events, delta("function_call")), tools=[FUNCTION]).json()["choices"][0]
    [call] = told["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"a":1}'}
    assert told["finish_reason"] == "tool_calls"


def test_calls_with_same_id_get_unique_ids(play: Callable[..., httpx.Response]) -> None:
    pieces = [{"index": n, "id": "same", "function": {"name": "weather", "arguments": "{}"}} for n in range(3)]
    told = play("stub", telling(delta(tool_calls=pieces), delta("tool_calls")), tools=[FUNCTION]).json()
    assert [call["id"] for call in told["choices"][0]["message"]["tool_calls"]] == ["same", "same_2", "same_3"]


@pytest.mark.parametrize("provider", ["claude", "stub"])
def test_endless_calls_are_refused(play: Callable[..., httpx.Response], provider: str) -> None:
    block = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
    if provider == "claude":
        starts = [{"type": "content_block_start", "index": n, "content_block": block} for n in range(129)]
        response = play(provider, anthropic.telling(anthropic.start(), *starts, *ended("tool_use")), tools=[FUNCTION])
    else:
        pieces = [{"index": n, "function": {"name": "weather"}} for n in range(129)]
        response = play(provider, telling(delta(tool_calls=pieces), delta("tool_calls")), tools=[FUNCTION])
    assert response.json()["error"]["message"].startswith("The model provider sent more than 128 tool calls.")


@pytest.mark.parametrize("provider", ["claude", "stub"])
def test_invalid_function_name_is_sent_back_in_accepted_form(
    play: Callable[..., httpx.Response], upstream: Upstream, provider: str
) -> None:
    lines = [
        [
            delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "no such.tool", "arguments": "{}"}}]),
            delta("tool_calls"),
        ],
        [delta(content="sorry"), delta("stop")],
    ]
    claudes = [
        [anthropic.start(), *called(name="no such.tool")],
        [anthropic.start(), *anthropic.text(["sorry"]), *ended()],
    ]

    def answer(exchange: Exchange) -> None:
        if provider == "claude":
            anthropic.telling(*claudes.pop(0))(exchange)
        else:
            telling(*lines.pop(0))(exchange)

    assert text_of(play(provider, answer)) == "sorry"
    shown = str(upstream.requests[-1].body["messages"])
    assert "no_such_tool" in shown
    assert "'name': 'no such.tool'" not in shown


@pytest.mark.parametrize("provider", ["claude", "stub"])
def test_history_arguments_that_are_not_object_are_wrapped(
    client: httpx.Client, upstream: Upstream, provider: str
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"a'}}
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]
    claude = anthropic.telling(anthropic.start(), *anthropic.text(["well"]), *ended())
    upstream.answers["odd"] = claude if provider == "claude" else telling(delta(content="well"), delta("stop"))
    assert text_of(ask(client, *history, headers={"x-openclaw-model": f"{provider}/odd"})) == "well"
    assert "not_an_object" in str(upstream.requests[-1].body["messages"])
