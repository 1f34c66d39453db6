"""`GET /v1/runs/{id}/chat-stream`: a chat completion's stream goes on after a broken connection, in every process."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from support.chat import ask, chunks_of, error_of
from support.conformance import Conformance, check_stream
from support.live import TOKEN, LiveGateway, stubbed_config
from support.upstream import Exchange, Upstream
from support.upstream_answers import USAGE

from service.api.http.chat_chunks import ChunkEncoder
from service.api.http.chat_resume import ResumedChunks
from service.gateway.event_feeds import EventFeed, Watch
from service.storage.runs.events import LoggedEvent

CONTINUE = {"x-openclaw-on-disconnect": "continue", "x-openclaw-events": "reasoning,tools"}
FUNCTION: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
READ = {"index": 0, "id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path":"x"}'}}
THOUGHT = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}
WEATHER = ('{"city":', '"Hà ', 'Nội"}')


@pytest.fixture(scope="module")
def conformance() -> Conformance:
    return Conformance()


@pytest.fixture(scope="module")
def config(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    workspace = str(tmp_path_factory.mktemp("workspace"))
    agent = {"id": "main", "workspace": workspace, "tools": {"profile": "full"}}
    return stubbed_config(module_upstream.url, "stub/model", agents=[agent], defaults={"timeoutSeconds": 60})


def model(upstream: Upstream, release: threading.Event | None = None) -> None:
    """Thinks, reads, says something, waits for `release`, says more and calls a function."""

    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.event({"reasoning_content": "Hm 𝄞. "})
        if not any(message["role"] == "tool" for message in exchange.body["messages"]):
            exchange.event({"tool_calls": [READ]})
            exchange.end("tool_calls", THOUGHT)
            return
        exchange.event({"content": "Ở Hà Nội 🎼 "})
        if release is not None:
            assert release.wait(30)
        exchange.event({"content": "trời nắng."})
        exchange.event({"tool_calls": [{"index": 0, "id": "c2", "function": {"name": "weather", "arguments": ""}}]})
        for piece in WEATHER:
            exchange.event({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        exchange.end("tool_calls", THOUGHT)

    upstream.answers["model"] = answer


def fold(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a client makes of chunks: text, reasoning, calls, tools and the end."""
    found: dict[str, Any] = {"text": "", "reasoning": "", "calls": {}, "tools": [], "end": None}
    for chunk in chunks:
        if "type" in chunk.get("openclaw", {}):
            found["tools"].append(chunk["openclaw"]["type"])
        for choice in chunk["choices"]:
            delta = choice["delta"]
            found["text"] += delta.get("content") or ""
            found["reasoning"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                known = found["calls"].setdefault(call["index"], ["", ""])
                known[0] += call["function"].get("name", "")
                known[1] += call["function"]["arguments"]
            found["end"] = choice["finish_reason"] or found["end"]
    return found


def numbered(chunks: list[dict[str, Any]]) -> int:
    """Return how many of the chunks a client keeps that resumes: those up to the last number."""
    return max((place for place, chunk in enumerate(chunks, 1) if "openclaw" in chunk), default=0)


def number_of(chunks: list[dict[str, Any]]) -> int:
    kept = chunks[: numbered(chunks)]
    return int(kept[-1]["openclaw"]["sequence_number"]) if kept else 0


def test_stream_goes_on_after_every_chunk(
    pair: tuple[LiveGateway, LiveGateway], upstream: Upstream, conformance: Conformance
) -> None:
    model(upstream)
    with pair[0].client() as here, pair[1].client() as there:
        with_usage = {"include_usage": True}
        streamed = ask(here, "hi", headers=CONTINUE, stream=True, tools=[FUNCTION], stream_options=with_usage)
        check_stream(conformance, streamed.text)
        *whole, last = chunks_of(streamed)
        assert last["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}
        expected = fold(whole)
        assert expected["text"] == "Ở Hà Nội 🎼 trời nắng."
        assert expected["calls"] == {0: ["weather", '{"city":"Hà Nội"}']}
        path = f"/v1/runs/{whole[0]['id']}/chat-stream"
        for count in range(len(whole) + 1):
            kept = whole[:count][: numbered(whole[:count])]
            client = (here, there)[count % 2]
            rest = client.get(path, params={"after": number_of(kept)}, headers=CONTINUE)
            check_stream(conformance, rest.text)
            assert fold(kept + chunks_of(rest)) == expected, count
        for after in range(number_of(whole) + 1):  # within texts, too
            within = chunks_of(there.get(path, params={"after": after, "include_usage": "true"}, headers=CONTINUE))
            assert expected["text"].endswith(fold(within)["text"])
            assert after == number_of(whole) or within[-1]["usage"] == last["usage"]
        hidden = fold(chunks_of(there.get(path)))
        assert hidden == {**expected, "reasoning": "", "tools": []}
        assert there.head(path).status_code == 200


def test_sdk_resumes_elsewhere_while_the_run_goes_on(pair: tuple[LiveGateway, LiveGateway], upstream: Upstream) -> None:
    release = threading.Event()
    model(upstream, release)
    here, there = (openai.OpenAI(base_url=f"{one.url}/v1", api_key=TOKEN, max_retries=0) for one in pair)
    text, number = "", 0
    with here.chat.completions.create(
        model="openclaw",
        messages=[{"role": "user", "content": "hi"}],
        tools=[FUNCTION],
        stream=True,
        extra_headers=CONTINUE,
    ) as stream:
        for chunk in stream:
            run_id = chunk.id
            text += chunk.choices[0].delta.content or ""
            number = getattr(chunk, "openclaw", {}).get("sequence_number", number)
            if text:
                break
    resumed = there.get(
        f"/runs/{run_id}/chat-stream",
        cast_to=ChatCompletionChunk,
        stream=True,
        stream_cls=openai.Stream[ChatCompletionChunk],
        options={"params": {"after": number}, "headers": CONTINUE},
    )
    release.set()
    finish_reason = None
    for chunk in resumed:
        text += chunk.choices[0].delta.content or ""
        finish_reason = chunk.choices[0].finish_reason
    assert (text, finish_reason) == ("Ở Hà Nội 🎼 trời nắng.", "tool_calls")


def test_failure_and_unknown_runs(pair: tuple[LiveGateway, LiveGateway], upstream: Upstream) -> None:
    name = uuid.uuid4().hex
    upstream.answers[name] = lambda exchange: exchange.json(500, {"error": {"message": "no"}})
    with pair[1].client() as client:
        started = client.post("/v1/runs", json={"input": "hi", "model": f"stub/{name}"})
        path = f"{started.headers['location']}/chat-stream"
        chunks = chunks_of(client.get(path))
        assert [next(iter(chunk)) for chunk in chunks] == ["id", "error"]
        assert chunks[-1]["error"]["code"] == "provider_error"
        assert error_of(client.get("/v1/runs/nobody/chat-stream"))[:2] == (404, "run_not_found")
        long_ago = "chatcmpl_01000000-0000-7000-8000-000000000000"
        gone = client.get(f"/v1/runs/{long_ago}/chat-stream")
        assert error_of(gone)[:2] == (410, "run_events_gone")
        assert client.get(path, params={"after": -1}).status_code == 400
        plain = ask(client, "hi", headers={"x-openclaw-model": "stub/ok"}, stream=True)
        assert not any("openclaw" in chunk for chunk in chunks_of(plain))


@pytest.mark.parametrize(("shows", "is_void"), [(["reasoning"], True), ([], False)])
def test_stream_ends_when_what_it_has_sent_is_void(shows: list[str], *, is_void: bool) -> None:
    feed = EventFeed()
    stream = ResumedChunks(Watch(feed, 0, 0.01), ChunkEncoder("run", 0, "m", include_usage=False), 0, shows, None)
    feed.extend(
        [
            LoggedEvent.of(2, "reasoning.delta", {"text": "Hm"}),
            LoggedEvent.of(3, "reasoning.retracted", {"characters": 2}),
            LoggedEvent.of(4, "text.delta", {"text": "a"}),
            LoggedEvent.of(5, "run.ended", {"state": "ok", "finish_reason": "stop", "error": None}),
        ]
    )
    sent = b"".join(stream)
    assert (b"provider_error" in sent, b'"content":"a"' in sent) == (is_void, not is_void)
    assert sent.endswith(b"data: [DONE]\n\n")
