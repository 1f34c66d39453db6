"""The arguments of the caller's functions in streams, as the model writes them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest
from support import upstream_answers_anthropic as anthropic
from support.chat import PATH, ask, chunks_of, user
from support.conformance import Conformance, check_stream
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream

CITY = '{"city": "Hà Nội 🎼", "days": [1, 2]}'
PIECES = [CITY[place : place + 5] for place in range(0, len(CITY), 5)]
DIALECTS = ("stub/model", "claude/model")


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


FUNCTIONS = [function("weather"), function("clock")]


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("gateway")
    agent = {"id": "main", "workspace": str(directory), "tools": {"profile": "full"}}
    retry = {"attempts": 2, "minDelayMs": 10}
    with live_gateway(directory, stubbed_config(module_upstream.url, agents=[agent], retry=retry)) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as opened:
        yield opened


class Caller:
    """A model that calls functions, in either dialect: its calls are names and pieces of arguments.

    `step` lets it write a piece, if given; then it ends with `reason`, or not at all.
    """

    def __init__(
        self,
        upstream: Upstream,
        *calls: tuple[str, Sequence[str]],
        reason: str | None = "calls",
        step: threading.Semaphore | None = None,
    ) -> None:
        self.calls = calls
        self.reason = reason
        self.step = step
        upstream.answers["model"] = self

    def __call__(self, exchange: Exchange) -> None:
        exchange.head()
        is_claude = exchange.path.endswith("/messages")
        if is_claude:
            exchange.send(anthropic.frame(anthropic.start()))
        for index, (name, pieces) in enumerate(self.calls):
            self._write(exchange, index, name, pieces, is_claude=is_claude)
        if self.reason is None:
            exchange.drop()
        elif is_claude:
            stop = {"calls": "tool_use", "length": "max_tokens"}[self.reason]
            exchange.send(b"".join(map(anthropic.frame, anthropic.end(stop))))
            exchange.last_chunk()
        else:
            exchange.end({"calls": "tool_calls"}.get(self.reason, self.reason))

    def _write(self, exchange: Exchange, index: int, name: str, pieces: Sequence[str], *, is_claude: bool) -> None:
        events = anthropic.call(index, name, pieces)
        if is_claude:
            exchange.send(anthropic.frame(events[0]))
        else:
            opening = {"index": index, "id": f"call_{index}", "type": "function"}
            exchange.event({"tool_calls": [{**opening, "function": {"name": name, "arguments": ""}}]})
        for piece, event in zip(pieces, events[1:], strict=False):
            if self.step is not None:
                assert self.step.acquire(timeout=30)
            if is_claude:
                exchange.send(anthropic.frame(event))
            else:
                exchange.event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            exchange.wait(0.01)
        if is_claude:
            exchange.send(anthropic.frame(events[-1]))


def stream(client: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    return ask(client, "hi", headers={"x-openclaw-model": model}, stream=True, tools=FUNCTIONS, **fields)


def whole(client: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    return ask(client, "hi", headers={"x-openclaw-model": model}, tools=FUNCTIONS, **fields)


def folded(chunks: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return names and arguments, of deltas in the order that clients rely on."""
    calls: list[dict[str, Any]] = []
    for chunk in chunks:
        for choice in chunk.get("choices", ()):
            for delta in choice["delta"].get("tool_calls", ()):
                if delta["index"] == len(calls):
                    assert delta["id"]
                    assert delta["type"] == "function"
                    calls.append({"name": delta["function"]["name"], "arguments": ""})
                else:
                    assert delta.keys() == {"index", "function"}
                calls[delta["index"]]["arguments"] += delta["function"]["arguments"]
    return [(call["name"], call["arguments"]) for call in calls]


def requested(response: httpx.Response) -> list[tuple[str, str]]:
    assert response.status_code == 200, response.text
    calls = response.json()["choices"][0]["message"]["tool_calls"]
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


@pytest.mark.parametrize("model", DIALECTS)
def test_arguments_are_streamed_while_the_model_writes(gateway: LiveGateway, upstream: Upstream, model: str) -> None:
    step = threading.Semaphore(2)
    Caller(upstream, ("weather", PIECES), step=step)
    sdk = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0)
    tools: Any = FUNCTIONS
    chunks: Any = sdk.chat.completions.create(
        model="openclaw",
        messages=[{"role": "user", "content": "hi"}],
        tools=tools,
        stream=True,
        extra_headers={"x-openclaw-model": model},
    )
    seen = ""
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
            seen += (call.function and call.function.arguments) or ""
            step.release()  # the next piece comes only once the one before it was seen
    assert seen == CITY


@pytest.mark.parametrize("model", DIALECTS)
@pytest.mark.parametrize(
    "calls",
    [
        [("weather", PIECES)],
        [("weather", [CITY])],
        [("clock", []), ("weather", PIECES)],
        [("clock", ["{}"]), ("weather", PIECES), ("weather", PIECES)],
        [("weather", PIECES), ("clock", ["", "{", "}"])],
        [("weather", [*PIECES, CITY])],
        [("weather", ["{}", *PIECES])],
        [("read", ['{"pa', 'th":"x"}']), ("weather", PIECES)],
        [("weather", PIECES), ("read", ['{"pa', 'th":"x"}']), ("clock", ["{ ", "}"])],
    ],
)
def test_stream_and_object_have_the_same_calls(
    client: httpx.Client, upstream: Upstream, model: str, calls: list[tuple[str, list[str]]]
) -> None:
    Caller(upstream, *calls)
    streamed = stream(client, model)
    check_stream(Conformance(), streamed.text)
    chunks = chunks_of(streamed)
    assert folded(chunks) == requested(whole(client, model))
    assert [name for name, _ in folded(chunks)] == [name for name, _ in calls if name != "read"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("model", DIALECTS)
def test_first_call_alone_is_streamed_without_parallel_calls(
    client: httpx.Client, upstream: Upstream, model: str
) -> None:
    Caller(upstream, ("weather", PIECES), ("clock", ["{ ", "}"]))
    fields = {"parallel_tool_calls": False}
    assert folded(chunks_of(stream(client, model, **fields))) == requested(whole(client, model, **fields))
    choice = {"type": "function", "function": {"name": "clock"}}
    chunks = chunks_of(stream(client, model, tool_choice=choice))
    assert folded(chunks) == requested(whole(client, model, tool_choice=choice)) == [("clock", "{ }")]


@pytest.mark.parametrize("model", DIALECTS)
@pytest.mark.parametrize(("reason", "pieces"), [("length", PIECES[:3]), (None, PIECES[:3])])
def test_call_that_is_not_finished_fails_a_stream_that_has_begun_it(
    client: httpx.Client, upstream: Upstream, model: str, reason: str | None, pieces: list[str]
) -> None:
    Caller(upstream, ("weather", pieces), reason=reason)
    chunks = chunks_of(stream(client, model))
    assert chunks[-1]["error"]["code"] == "provider_error"
    assert CITY.startswith(folded(chunks)[0][1])
    assert not any(choice["finish_reason"] for chunk in chunks[:-1] for choice in chunk["choices"])
    assert len(upstream.requests) == 1
    answer = whole(client, model)
    if reason == "length":
        assert answer.json()["choices"][0]["finish_reason"] == "length"
    else:
        assert answer.status_code == 502
        assert len(upstream.requests) == 3  # asked again, since nobody has seen anything


@pytest.mark.parametrize("model", DIALECTS)
def test_streamed_call_is_answered(client: httpx.Client, upstream: Upstream, model: str) -> None:
    Caller(upstream, ("weather", PIECES))
    headers = {"x-openclaw-model": model, "x-openclaw-session-key": f"agent:main:calls-{model[:4]}"}
    chunks = chunks_of(ask(client, "hi", headers=headers, stream=True, tools=FUNCTIONS))
    call_id = next(
        delta["id"]
        for chunk in chunks
        for choice in chunk["choices"]
        for delta in choice["delta"].get("tool_calls", ())
        if "id" in delta
    )
    Caller(upstream, ("clock", ["{", "}"]))
    result = {"role": "tool", "tool_call_id": call_id, "content": "sunny"}
    body = {"messages": [result], "tools": FUNCTIONS, "stream": True}
    again = chunks_of(client.post(PATH, json=body, headers=headers))
    assert folded(again) == [("clock", "{}")]
    assert "sunny" in json.dumps(upstream.requests[-1].body)
    assert user("hi")["content"] in json.dumps(upstream.requests[-1].body)
