"""`Idempotency-Key`: a repeated request returns the result of one run, streamed or not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from support.chat import ask, error_of, text_of
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.raw_request import start_request
from support.upstream import Upstream


def relay_config(upstream: Upstream) -> dict[str, Any]:
    return stubbed_config(upstream.url, apiKey="key", defaults={"timeoutSeconds": 20})


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("relay"), relay_config(module_upstream)) as running:
        yield running


@pytest.fixture
def talk(relay: LiveGateway) -> Iterator[httpx.Client]:
    with relay.client() as client:
        yield client


def new_key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def streamed(client: httpx.Client, text: str, headers: dict[str, str], **fields: Any) -> tuple[str, str]:
    """The id and the text of a streamed answer."""
    response = ask(client, text, headers=headers, stream=True, **fields)
    chunks = [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert not any("error" in chunk for chunk in chunks), response.text
    return chunks[0]["id"], "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def test_repeated_request_returns_same_run(talk: httpx.Client, upstream: Upstream) -> None:
    key, before = new_key(), len(upstream.requests)
    first, second = ask(talk, "once", headers=key), ask(talk, "once", headers=key)
    assert first.json() == second.json()
    assert first.headers["x-openclaw-session-key"] == second.headers["x-openclaw-session-key"]
    assert streamed(talk, "once", key) == (first.json()["id"], text_of(first))
    assert len(upstream.requests) == before + 1


def test_streamed_answer_can_be_fetched_as_json(talk: httpx.Client, upstream: Upstream) -> None:
    key, before = new_key(), len(upstream.requests)
    run_id, text = streamed(talk, "streamed first", key)
    again = ask(talk, "streamed first", headers=key)
    assert (again.json()["id"], text_of(again)) == (run_id, text)
    assert len(upstream.requests) == before + 1


def test_missing_or_other_key_starts_new_run(talk: httpx.Client) -> None:
    answers = [ask(talk, "same words", headers=headers).json()["id"] for headers in ({}, {}, new_key(), new_key())]
    assert len(set(answers)) == 4


@pytest.mark.parametrize(
    "change", [{"text": "other words"}, {"fields": {"temperature": 1}}, {"headers": {"x-openclaw-session-key": "k"}}]
)
def test_different_request_with_same_key_is_refused(talk: httpx.Client, change: dict[str, Any]) -> None:
    key = new_key()
    ask(talk, "some words", headers=key)
    headers = key | change.get("headers", {})
    refused = talk.post(
        "/v1/chat/completions",
        json={
            "model": "openclaw",
            "messages": [{"role": "user", "content": change.get("text", "some words")}],
            **change.get("fields", {}),
        },
        headers=headers,
    )
    assert error_of(refused) == (409, "idempotency_key_reused", "Idempotency-Key")


def test_differently_formatted_body_is_same_request(talk: httpx.Client) -> None:
    key = {**new_key(), "Content-Type": "application/json"}
    bodies = (
        b'{"model": "openclaw", "messages": [{"role": "user", "content": "hi"}]}',
        b'{"messages":[{"content":"hi","role":"user"}],"model":"openclaw"}',
    )
    first, second = (talk.post("/v1/chat/completions", content=body, headers=key) for body in bodies)
    assert first.json() == second.json()


@pytest.mark.parametrize("more", [{"temperature": None, "tools": None}, {"usage": None}, {"stream_options": None}])
def test_null_field_is_same_as_none(talk: httpx.Client, more: dict[str, Any]) -> None:
    key = new_key()
    first = ask(talk, "with or without null", headers=key)
    assert ask(talk, "with or without null", headers=key, **more).json() == first.json()


def test_concurrent_requests_wait_for_one_run(talk: httpx.Client, upstream: Upstream) -> None:
    key, before = new_key(), len(upstream.requests)
    headers = key | {"x-openclaw-model": "stub/slow"}

    def send(number: int) -> str:
        if number % 2:
            return streamed(talk, "together", headers)[1]
        return text_of(ask(talk, "together", headers=headers))

    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(send, range(8)))
    assert len(texts) == 1
    assert len(upstream.requests) == before + 1


def test_session_stores_request_once(talk: httpx.Client, upstream: Upstream) -> None:
    session = {"x-openclaw-session-key": f"once-{uuid.uuid4()}"}
    key = session | new_key()
    for _ in range(3):
        ask(talk, "first", headers=key)
    ask(talk, "second", headers=session)
    said = [message["content"] for message in upstream.requests[-1].body["messages"] if message["role"] == "user"]
    assert said == ["first", "second"]


def test_run_continues_when_caller_disconnects(talk: httpx.Client, relay: LiveGateway, upstream: Upstream) -> None:
    headers = new_key() | {"x-openclaw-model": "stub/slow"}
    before = len(upstream.requests)
    with start_request(relay, headers=headers, text="patience"):
        until(lambda: len(upstream.requests) > before)
    assert text_of(ask(talk, "patience", headers=headers))
    assert len(upstream.requests) == before + 1


def test_failed_run_is_started_again(talk: httpx.Client, upstream: Upstream) -> None:
    headers = new_key() | {"x-openclaw-model": "stub/status-500"}
    before = len(upstream.requests)
    first = talk.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}, headers=headers)
    again = talk.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}, headers=headers)
    assert first.status_code == again.status_code == 502
    assert len(upstream.requests) == before + 2


def test_refused_request_leaves_key_free(talk: httpx.Client) -> None:
    key = new_key()
    refused = talk.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": " "}]}, headers=key)
    assert refused.status_code == 400
    assert text_of(ask(talk, "better", headers=key))


def test_key_survives_restart(upstream: Upstream, tmp_path: Path) -> None:
    key, before = new_key(), len(upstream.requests)
    answers = []
    for _ in range(2):
        with live_gateway(tmp_path, relay_config(upstream)) as running, running.client() as client:
            answers.append(ask(client, "durable", headers=key).json())
    assert answers[0] == answers[1]
    assert len(upstream.requests) == before + 1


def test_sdk_sends_key_as_extra_header(relay: LiveGateway) -> None:
    client = openai.OpenAI(base_url=f"{relay.url}/v1", api_key=TOKEN, max_retries=0)
    key = new_key()
    answers = [
        client.chat.completions.create(
            model="openclaw", messages=[{"role": "user", "content": "hi"}], extra_headers=key
        )
        for _ in range(2)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("key", ["with space", "é", "x" * 256])
def test_invalid_key_is_refused(talk: httpx.Client, key: str) -> None:
    refused = talk.post(
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "x"}]},
        headers={b"Idempotency-Key": key.encode()},
    )
    assert error_of(refused) == (400, "invalid_value", "Idempotency-Key")
