"""Retries after an interrupted answer for callers that read only the complete answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.chat import PATH, ask, chunks_of, error_of, text_of, user
from support.live import live_gateway, stubbed_config
from support.runs import new_run
from support.upstream import Exchange, Upstream
from support.upstream_answers import refuse

from service.agent.events import RunEnded, TextDelta, TextRetracted


@pytest.fixture
def client(upstream: Upstream, tmp_path: Path) -> Iterator[httpx.Client]:
    models = {"primary": "stub/wobbly", "fallbacks": ["stub/ok"]}
    config = stubbed_config(upstream.url, models, retry={"attempts": 2, "minDelayMs": 10}, timeoutSeconds=5)
    with live_gateway(tmp_path, config) as running, running.client() as connected:
        yield connected


class BreaksOff:
    """Says half of something `times` times, then all of it."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        with self.lock:
            self.left -= 1
        exchange.head()
        exchange.event({"content": "Half of "})
        if self.left >= 0:
            exchange.drop()
            return
        exchange.event({"content": "it all."})
        exchange.end()


def test_interrupted_answer_is_retried(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["wobbly"] = BreaksOff(1)
    answer = ask(client, "hi", headers={"x-openclaw-session-key": "agent:main:again"})
    assert text_of(answer) == "Half of it all."
    ask(client, "and?", headers={"x-openclaw-session-key": "agent:main:again"})
    assert [message["content"] for message in upstream.requests[-1].body["messages"]] == [
        "hi",
        "Half of it all.",
        "and?",
    ]


def test_fallback_is_used_after_interrupted_answers(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["wobbly"] = BreaksOff(2)
    assert "Half" not in text_of(ask(client, "hi"))
    assert [request.body["model"] for request in upstream.requests] == ["wobbly", "wobbly", "ok"]


@pytest.mark.parametrize("key", [False, True])
def test_text_a_reader_may_have_received_is_not_retracted(client: httpx.Client, upstream: Upstream, key: bool) -> None:
    upstream.answers["wobbly"] = BreaksOff(1)
    if key:
        assert ask(client, "hi", headers={"Idempotency-Key": "once"}).status_code == 502
    else:
        body = {"messages": [user("hi")], "stream": True}
        assert chunks_of(client.post(PATH, json=body))[-1]["error"]["code"] == "provider_error"
    assert len(upstream.requests) == 1


def test_message_that_fits_no_window_has_context_length_code(client: httpx.Client, upstream: Upstream) -> None:
    fault = {"error": {"message": "This model's maximum context length is 10 tokens.", "type": "invalid_request_error"}}
    upstream.answers["wobbly"] = upstream.answers["ok"] = lambda exchange: exchange.json(400, fault)
    assert error_of(ask(client, "hi")) == (400, "context_length_exceeded", "messages")


def test_retracted_text_is_removed_however_log_is_merged() -> None:
    run = new_run()
    for text in ("Kept.", "\n\n", "Half", " of"):
        run.append(TextDelta(text))
    run.append(TextRetracted(9))
    assert run.text == "Kept."
    run.append(TextDelta(" All."))
    run.append(RunEnded())
    assert run.text == run.wait().text == "Kept. All."


def test_error_names_failed_model_and_number_of_attempts(client: httpx.Client, upstream: Upstream) -> None:
    refused = ask(client, "hi", headers={"x-openclaw-model": "stub/status-401"})
    assert refused.json()["error"]["message"].endswith("(The model: stub/status-401.)")
    upstream.answers["wobbly"] = upstream.answers["ok"] = lambda exchange: refuse(exchange, 500)
    message = ask(client, "hi").json()["error"]["message"]
    assert message.endswith("(The model: all 2 models failed, the last was stub/ok.)")
