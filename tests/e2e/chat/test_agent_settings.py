"""An agent's names and sampling parameters, in what is listed and in what its model gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from support.chat import ask, error_of, user
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.responses import events_of, respond, response_of
from support.upstream import Upstream

PARAMS = {"temperature": 0.3, "topP": 0.9, "maxTokens": 50, "textVerbosity": "low"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    agents = [{"id": "main"}, {"id": "coder", "params": PARAMS, "thinkingDefault": "high"}]
    models = {"stub/ok": {}, "stub/echo": {"alias": "other"}}
    config = stubbed_config(upstream.url, agents=agents, defaults={"models": models})
    config["gateway"]["http"]["models"] = {"gpt-4o": "openclaw/coder"}
    with live_gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as open_client:
        yield open_client


def wire(upstream: Upstream) -> dict[str, Any]:
    names = ("model", "temperature", "top_p", "max_tokens", "verbosity", "reasoning_effort")
    body = upstream.requests[-1].body
    return {name: body[name] for name in names if name in body}


def test_agents_parameters_stand_below_those_of_the_request(client: httpx.Client, upstream: Upstream) -> None:
    everything = {"temperature": 0.3, "top_p": 0.9, "max_tokens": 50, "verbosity": "low", "reasoning_effort": "high"}
    ask(client, user("hi"), model="GPT-4o", temperature=None).raise_for_status()
    assert wire(upstream) == {"model": "ok", **everything}
    ask(client, user("hi"), model="gpt-4o", top_p=0, max_tokens=9, reasoning_effort="low").raise_for_status()
    own = {"top_p": 0, "max_tokens": 9, "verbosity": "low", "reasoning_effort": "low"}
    assert wire(upstream) == {"model": "ok", **own}
    ask(client, user("hi"), model="openclaw").raise_for_status()
    assert wire(upstream) == {"model": "ok"}


def in_force(response: dict[str, Any]) -> dict[str, Any]:
    names = ("model", "temperature", "top_p", "max_output_tokens")
    effort, verbosity = response["reasoning"]["effort"], response["text"].get("verbosity")
    return {**{name: response[name] for name in names}, "verbosity": verbosity, "effort": effort}


def test_response_says_which_parameters_are_in_force(client: httpx.Client, upstream: Upstream) -> None:
    agents = {
        "model": "openclaw/coder",
        "temperature": 0.3,
        "top_p": 0.9,
        "max_output_tokens": 50,
        "verbosity": "low",
        "effort": "high",
    }
    first = respond(client, "hi", model="openclaw/coder")
    assert in_force(first.json()) == agents
    streamed = respond(client, "hi", previous_response_id=first.json()["id"], stream=True)
    assert all(in_force(event["response"]) == agents for event in events_of(streamed) if "response" in event)
    assert in_force(client.get(f"/v1/responses/{response_of(streamed)['id']}").json()) == agents
    own = {"temperature": 1.5, "max_output_tokens": 9, "reasoning": {"effort": "low"}, "text": {"verbosity": "high"}}
    key = {"Idempotency-Key": "in-force"}
    for _ in range(2):
        asked = respond(client, "hi", key, model="openclaw/coder", store=False, **own).json()
        assert in_force(asked) == {
            "model": "openclaw/coder",
            "temperature": 1.5,
            "top_p": 1,
            "max_output_tokens": 9,
            "verbosity": "high",
            "effort": "low",
        }
    assert wire(upstream)["temperature"] == 1.5
    plain = respond(client, "hi").json()
    assert in_force(plain) == {
        "model": "openclaw/main",
        "temperature": 1,
        "top_p": 1,
        "max_output_tokens": None,
        "verbosity": None,
        "effort": None,
    }


def test_alias_of_a_model_is_taken_where_a_model_is_named(client: httpx.Client, upstream: Upstream) -> None:
    ask(client, user("hi"), headers={"x-openclaw-model": "OTHER"}).raise_for_status()
    assert wire(upstream)["model"] == "echo"
    refused = ask(client, user("hi"), headers={"x-openclaw-model": "another"})
    assert error_of(refused) == (404, "model_not_found", "x-openclaw-model")
    assert "(other)" in refused.json()["error"]["message"]


def test_names_are_listed_and_echoed(gateway: LiveGateway) -> None:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN) as sdk:
        assert "gpt-4o" in [model.id for model in sdk.models.list()]
        assert sdk.models.retrieve("gpt-4o").id == "gpt-4o"
        answer = sdk.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    assert answer.model == "gpt-4o"
