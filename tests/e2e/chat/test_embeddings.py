"""Embeddings: with OpenAI's SDK, from providers that answer well, badly and late, and in both encodings."""

from __future__ import annotations

import base64
import uuid
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from support.chat import error_of
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config, stubbed_config
from support.polling import until
from support.raw_request import start_request
from support.upstream import Exchange, Upstream

PATH = "/v1/embeddings"
VECTORS = ([0.25, -1.0, 3.0], [0.5, 0, 1e-9])


def answering(*vectors: Any, **more: Any) -> Callable[[Exchange], None]:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return lambda exchange: exchange.json(200, {"data": data[::-1], "usage": {"prompt_tokens": 5}, **more})


def late(exchange: Exchange) -> None:
    """Fail twice, then answer."""
    asked = sum(received.body["model"] == "late" for received in exchange.server.upstream.requests)
    answering(*VECTORS)(exchange) if asked > 2 else exchange.json(503, {"error": {"message": "busy"}})


ANSWERS: dict[str, Callable[[Exchange], None]] = {
    "vectors": answering(*VECTORS),
    "late": late,
    "one": answering(VECTORS[0]),
    "three": answering(*VECTORS, VECTORS[0]),
    "words": answering(["a"], ["b"]),
    "truths": answering([True], [False]),
    "huge": answering([1e39], [1]),
    "empty": answering([], []),
    "uneven": answering([1, 2], [3]),
    "page": lambda exchange: exchange.json(200, "hello"),
    "rejects": lambda exchange: exchange.json(400, {"error": {"message": "dimensions is not supported"}}),
    "waits": lambda exchange: exchange.wait(),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        running.answers.update(ANSWERS)
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    policy = {"id": "strict", "modelPolicy": {"allow": ["stub/vectors"]}}
    retry = {"attempts": 3, "minDelayMs": 1, "maxDelayMs": 5}
    own = {"model": "vectors", "remote": {"baseUrl": upstream.url, "apiKey": "memory-key", "batch": {"wait": True}}}
    agents = [
        {"id": "main"},
        policy,
        {"id": "own", "memory": {"search": own}},
        {"id": "former", "memorySearch": {"enabled": False}},
    ]
    config = stubbed_config(upstream.url, agents=agents, retry=retry, apiKey="key")
    config["gateway"]["http"]["endpoints"]["embeddings"] = {"enabled": True}
    config["gateway"]["http"]["models"] = {"text-embedding-3-small": "openclaw/main"}
    config["memory"] = {"search": {"provider": "stub", "model": "vectors", "store": {"path": "x"}}}
    with live_gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as open_client:
        yield open_client


def embed(client: httpx.Client, provider_model: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if provider_model is None else {"x-openclaw-model": provider_model}
    return client.post(PATH, json={"input": ["a", "b"], **body}, headers=headers)


def test_vectors_come_in_order_and_in_both_encodings(client: httpx.Client, upstream: Upstream) -> None:
    answer = embed(client, dimensions=3, user="u").raise_for_status().json()
    assert [one["embedding"] for one in answer["data"]] == [list(vector) for vector in VECTORS]
    assert (answer["model"], answer["usage"]) == ("openclaw", {"prompt_tokens": 5, "total_tokens": 5})
    assert upstream.requests[-1].body == {"model": "vectors", "input": ["a", "b"], "dimensions": 3, "user": "u"}
    encoded = embed(client, encoding_format="base64").raise_for_status().json()
    decoded = [list(array("f", base64.b64decode(one["embedding"]))) for one in encoded["data"]]
    assert decoded == [list(array("f", vector)) for vector in VECTORS]


def test_model_is_that_of_the_agents_memory(client: httpx.Client, upstream: Upstream) -> None:
    embed(client).raise_for_status()
    assert upstream.requests[-1].headers["authorization"] == "Bearer key"
    embed(client, model="openclaw/own").raise_for_status()
    assert upstream.requests[-1].headers["authorization"] == "Bearer memory-key"
    assert upstream.requests[-1].body["model"] == "vectors"
    assert error_of(embed(client, model="openclaw/former"))[:2] == (404, "model_not_found")
    assert embed(client, "stub/vectors", model="openclaw/former").is_success


def test_idempotency_key_makes_vectors_once(client: httpx.Client, upstream: Upstream) -> None:
    upstream.requests.clear()
    key = {"Idempotency-Key": uuid.uuid4().hex, "x-openclaw-model": "stub/vectors"}
    body = {"input": ["a", "b"]}
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: client.post(PATH, json=body, headers=key), range(3)))
    answers.append(client.post(PATH, json=body, headers=key))
    assert len({answer.raise_for_status().text for answer in answers}) == len(upstream.requests) == 1
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers].count("true") == 3
    for other in ({"input": "a"}, {**body, "encoding_format": "base64"}):
        assert error_of(client.post(PATH, json=other, headers=key))[1] == "idempotency_key_reused"
    failing = {**key, "Idempotency-Key": uuid.uuid4().hex, "x-openclaw-model": "stub/rejects"}
    for _ in range(2):
        assert error_of(client.post(PATH, json=body, headers=failing))[1] == "provider_rejected_request"
    assert len(upstream.requests) == 3


def test_sdk_gets_vectors(gateway: LiveGateway, upstream: Upstream) -> None:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0) as sdk:
        answer = sdk.embeddings.create(model="text-embedding-3-small", input=[[1, 2], [3]])  # as base64 by default
        assert [one.embedding[0] for one in answer.data] == [0.25, 0.5]
        assert upstream.requests[-1].body["input"] == [[1, 2], [3]]
        with pytest.raises(openai.NotFoundError, match="Aliases: text-embedding-3-small"):
            sdk.embeddings.create(model="text-embedding-9", input="a")


def test_failures_that_may_pass_are_retried(client: httpx.Client, upstream: Upstream) -> None:
    upstream.requests.clear()
    assert embed(client, "stub/late").is_success
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("model", ["one", "three", "words", "truths", "empty", "uneven", "page"])
def test_answer_without_a_vector_for_each_input_is_refused(client: httpx.Client, model: str) -> None:
    assert error_of(embed(client, f"stub/{model}"))[:2] == (502, "provider_error")


def test_number_beyond_32_bits_is_refused_in_base64(client: httpx.Client) -> None:
    assert embed(client, "stub/huge").is_success
    assert error_of(embed(client, "stub/huge", encoding_format="base64"))[:2] == (502, "provider_error")


@pytest.mark.parametrize(
    ("model", "body", "refusal"),
    [
        (None, {"input": ""}, (400, "invalid_value", "input")),
        (None, {"input": None}, (400, "invalid_type", "input")),
        (None, {"input": []}, (400, "invalid_value", "input")),
        (None, {"input": ["a", ""]}, (400, "invalid_value", "input[1]")),
        (None, {"input": ["a"] * 2049}, (400, "invalid_value", "input")),
        (None, {"input": [[]]}, (400, "invalid_value", "input[0]")),
        (None, {"input": [1, "a"]}, (400, "invalid_type", "input[1]")),
        (None, {"dimensions": 0}, (400, "invalid_value", "dimensions")),
        (None, {"encoding_format": "hex"}, (400, "invalid_value", "encoding_format")),
        (None, {"model": "openclaw/nobody"}, (404, "model_not_found", "model")),
        ("stub/vectors", {"dimensions": 2}, (400, "unsupported_parameter", "dimensions")),
        ("stub/rejects", {"dimensions": 3}, (400, "provider_rejected_request", None)),
        ("claude/ok", {}, (400, "unsupported_parameter", "model")),
        ("stub/one", {"model": "openclaw/strict"}, (404, "model_not_found", "x-openclaw-model")),
    ],
)
def test_wrong_requests_are_refused(client: httpx.Client, model: str | None, body: Any, refusal: Any) -> None:
    assert error_of(embed(client, model, **body)) == refusal


def test_caller_that_leaves_ends_the_request(gateway: LiveGateway, client: httpx.Client, upstream: Upstream) -> None:
    upstream.requests.clear()
    headers = {"x-openclaw-model": "stub/waits"}
    with start_request(gateway, headers=headers, path=PATH, input="a", user="gone"):
        until(lambda: upstream.requests)
    until(upstream.aborted.is_set)

    def counted() -> Any:
        listed = client.get("/v1/usage", params={"by": "user"}).json()["data"]
        return next((one["usage"] for one in listed if one["user"] == "gone"), None)

    until(counted)
    assert (counted()["model_calls"], counted()["uncosted_calls"], counted()["cost"]) == (1, 1, None)


def test_time_that_is_up_is_the_reason_in_the_log(tmp_path: Path, upstream: Upstream) -> None:
    config = stubbed_config(upstream.url, defaults={"timeoutSeconds": 1})
    config["gateway"]["http"]["endpoints"]["embeddings"] = {"enabled": True}
    with live_gateway(tmp_path, config) as running, running.client() as client:
        assert error_of(embed(client, "stub/waits"))[1] == "run_timeout"
        until(lambda: "openclaw.embeddings outcome=run_timeout" in running.output)
        assert 'reason="The embeddings took longer than 1 seconds."' in running.output


def test_switch_and_model_are_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = scripted_config()
    with live_gateway(tmp_path_factory.mktemp("off"), config) as off, off.client() as client:
        response = embed(client)
        assert error_of(response)[:2] == (404, "endpoint_disabled")
        assert "gateway.http.endpoints.embeddings.enabled" in response.json()["error"]["message"]
    config["gateway"]["http"]["endpoints"]["embeddings"] = {"enabled": True}
    with live_gateway(tmp_path_factory.mktemp("none"), config) as none, none.client() as client:
        response = embed(client)
        assert error_of(response) == (404, "model_not_found", "model")
        assert "embeddings.model" in response.json()["error"]["message"]
        first, second = (one["embedding"] for one in embed(client, "scripted/echo").json()["data"])
        assert first != second
        assert len(embed(client, "scripted/echo", dimensions=5).json()["data"][0]["embedding"]) == 5
