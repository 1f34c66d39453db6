"""`x-openclaw-events`: reasoning and the agent's tools in answers, for callers that want to see them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support import upstream_answers_anthropic as anthropic
from support.chat import ask, chunks_of, error_of, streamed_text, text_of
from support.conformance import Conformance, check_stream
from support.live import LiveGateway, live_gateway, stubbed_config
from support.run_events import parse_events
from support.upstream import Exchange, Upstream

EVENTS = "x-openclaw-events"
COUNTS = {"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}}
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path":"no.txt"}'}}


@pytest.fixture(scope="module")
def conformance() -> Conformance:
    return Conformance()


@pytest.fixture(scope="module", params=[None, ["reasoning", "tools"]], ids=["hidden", "shown"])
def default(request: pytest.FixtureRequest) -> list[str] | None:
    value: list[str] | None = request.param
    return value


@pytest.fixture(scope="module")
def gateway(
    module_upstream: Upstream, default: list[str] | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("gateway")
    agent = {"id": "main", "workspace": str(directory), "tools": {"profile": "full"}}
    retry = {"attempts": 2, "minDelayMs": 10}
    config = stubbed_config(module_upstream.url, "stub/thinker", agents=[agent], retry=retry)
    if default is not None:
        config["gateway"]["http"]["endpoints"]["chatCompletions"]["events"] = default
    with live_gateway(directory, config) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as opened:
        yield opened


class Thinker:
    """Thinks, reads a file that is not there, thinks again and answers; `fails` times it stops while it thinks."""

    def __init__(self, upstream: Upstream, *, fails: int = 0) -> None:
        self.left = fails
        self.lock = threading.Lock()
        upstream.answers["thinker"] = self

    def __call__(self, exchange: Exchange) -> None:
        with self.lock:
            self.left -= 1
        exchange.head()
        has_read = any(message["role"] == "tool" for message in exchange.body["messages"])
        for piece in ("So ", "then.") if has_read else ("Let me ", "see."):
            exchange.event({"reasoning_content": piece})
        if self.left >= 0:
            exchange.drop()
            return
        for delta in ({"content": "There is "}, {"content": "no file."}) if has_read else ({"tool_calls": [CALL]},):
            exchange.event(delta)
        exchange.end("stop" if has_read else "tool_calls", usage=COUNTS)


THOUGHTS = "Let me see.\n\nSo then."


def shown_by(chunks: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Return the reasoning and the members about tools, whose chunks have to be ordinary ones."""
    progress = [chunk for chunk in chunks if "openclaw" in chunk]
    for chunk in progress:
        assert chunk["choices"] == [{"index": 0, "logprobs": None, "finish_reason": None, "delta": {}}]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(delta.get("reasoning_content", "") for delta in deltas), [chunk["openclaw"] for chunk in progress]


@pytest.mark.parametrize(
    "header", [None, "", "none", "reasoning", "tools", "tools ,  reasoning", "reasoning,reasoning"]
)
def test_answer_shows_what_its_caller_wants_to_see(
    client: httpx.Client, upstream: Upstream, conformance: Conformance, default: list[str] | None, header: str | None
) -> None:
    Thinker(upstream)
    shown = header or ",".join(default or ())
    headers = {} if header is None else {EVENTS: header}
    whole = ask(client, "hi", headers=headers)
    stream = ask(client, "hi", headers=headers, stream=True, stream_options={"include_usage": True})
    conformance.check(whole)
    check_stream(conformance, stream.text)
    reasoning, progress = shown_by(chunks_of(stream))
    message = whole.json()["choices"][0]["message"]
    assert message.get("reasoning_content", "") == reasoning == (THOUGHTS if "reasoning" in shown else "")
    assert text_of(whole) == streamed_text(stream) == "There is no file."
    assert [one["type"] for one in progress] == (["tool.started", "tool.ended"] if "tools" in shown else [])
    if progress:
        started, ended = progress
        about = {"tool_call_id": "c1", "name": "read", "label": "read: no.txt"}
        assert started == {"type": "tool.started", **about}
        assert ended == {"type": "tool.ended", **about, "ok": False, "duration_ms": ended["duration_ms"]}
    for usage in (whole.json()["usage"], chunks_of(stream)[-1]["usage"]):
        assert usage["completion_tokens_details"] == {"reasoning_tokens": 6}


@pytest.mark.parametrize("header", ["all", "reasoning;tools", "reasoning,", ",", "none,tools", "Reasoning"])
def test_other_kinds_of_events_are_refused(client: httpx.Client, header: str) -> None:
    assert error_of(ask(client, "hi", headers={EVENTS: header})) == (400, "invalid_value", EVENTS)


def test_reasoning_that_a_stream_has_shown_is_not_repeated(client: httpx.Client, upstream: Upstream) -> None:
    Thinker(upstream, fails=1)
    chunks = chunks_of(ask(client, "hi", headers={EVENTS: "reasoning"}, stream=True))
    assert chunks[-1]["error"]["code"] == "provider_error"
    assert shown_by(chunks)[0] == "Let me see."
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_reasoning_that_nobody_has_seen_is_repeated(client: httpx.Client, upstream: Upstream, *, stream: bool) -> None:
    Thinker(upstream, fails=1)
    answer = ask(client, "hi", headers={EVENTS: "tools" if stream else "reasoning"}, stream=stream)
    assert (streamed_text(answer) if stream else text_of(answer)) == "There is no file."
    if not stream:
        assert answer.json()["choices"][0]["message"]["reasoning_content"] == THOUGHTS


def test_events_of_a_run_have_the_reasoning(client: httpx.Client, upstream: Upstream, conformance: Conformance) -> None:
    Thinker(upstream, fails=1)
    started = client.post("/v1/runs", json={"input": "hi"})
    events = parse_events(conformance, client.get(f"{started.headers['Location']}/events", timeout=60).content)
    told = [(event["type"], event.get("text", event.get("characters"))) for event in events]
    first = "".join(str(text) for kind, text in told[: told.index(("reasoning.retracted", 11))] if "delta" in kind)
    rest = told[told.index(("reasoning.retracted", 11)) + 1 :]
    assert first == "Let me see."
    assert "".join(str(text) for kind, text in rest if kind == "reasoning.delta") == THOUGHTS
    assert "".join(str(text) for kind, text in rest if kind == "text.delta") == "There is no file."
    assert events[-1]["state"] == "ok"


def test_repetition_shows_the_same(client: httpx.Client, upstream: Upstream) -> None:
    Thinker(upstream)
    headers = {EVENTS: "reasoning", "Idempotency-Key": f"shown-{upstream.url}-{client.base_url}"}
    first, again = (ask(client, "hi", headers=headers) for _ in range(2))
    stream = ask(client, "hi", headers=headers, stream=True)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert shown_by(chunks_of(stream))[0] == first.json()["choices"][0]["message"]["reasoning_content"] == THOUGHTS


def test_thinking_of_claude_is_shown(client: httpx.Client, upstream: Upstream) -> None:
    thinking = [{"type": "thinking_delta", "thinking": text} for text in ("Hm. ", "Well.")]
    blocks = [*anthropic.block(0, {"type": "thinking", "thinking": ""}, thinking), *anthropic.text(["Hello"], 1)]
    upstream.answers["claude"] = anthropic.telling(anthropic.start(), *blocks, *anthropic.end())
    headers = {EVENTS: "reasoning", "x-openclaw-model": "claude/claude"}
    stream = ask(client, "hi", headers=headers, stream=True)
    assert (shown_by(chunks_of(stream))[0], streamed_text(stream)) == ("Hm. Well.", "Hello")


def test_reasoning_of_a_client_goes_to_no_model(client: httpx.Client, upstream: Upstream) -> None:
    Thinker(upstream)
    earlier = {"role": "assistant", "content": "Hello.", "reasoning_content": "secret thought"}
    ask(client, "hi", earlier, "and?", headers={"x-openclaw-session-key": "agent:main:thoughts", EVENTS: "reasoning"})
    ask(client, "more", headers={"x-openclaw-session-key": "agent:main:thoughts"})
    assert all("secret thought" not in str(request.body) for request in upstream.requests)
    assert "So then." not in str(upstream.requests[-1].body)  # that led to no call


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_reasoning_of_a_discarded_answer_is_not_shown(
    client: httpx.Client, upstream: Upstream, *, stream: bool
) -> None:
    answers = [("Wrong.", "no JSON"), ("Right.", '{"a": 1}')]

    def answer(exchange: Exchange) -> None:
        thought, text = answers.pop(0)
        exchange.head()
        for delta in ({"reasoning_content": thought}, {"content": text}):
            exchange.event(delta)
        exchange.end()

    upstream.answers["thinker"] = answer
    fields = {"response_format": {"type": "json_object"}, "stream": stream}
    response = ask(client, "JSON, please", headers={EVENTS: "reasoning"}, **fields)
    if stream:
        assert (shown_by(chunks_of(response))[0], streamed_text(response)) == ("Right.", '{"a": 1}')
    else:
        message = response.json()["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("Right.", '{"a": 1}')
