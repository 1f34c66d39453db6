"""`POST /v1/chat/completions` of a live gateway: answers, streams, agents, tools."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from support.chat import PATH, ask, chunks_of, error_of, streamed_text, text_of, user
from support.live import LiveGateway

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def test_answer_is_one_chat_completion(client: httpx.Client) -> None:
    response = ask(client, "hello there", model="openclaw")
    assert text_of(response) == "hello there"
    body = response.json()
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["choices"][0]["message"]["refusal"] is None
    assert body["choices"][0]["logprobs"] is None
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"] > 0


def test_stream_begins_with_role_and_ends_with_done(client: httpx.Client) -> None:
    response = ask(client, "hello there", stream=True)
    assert response.headers["content-type"] == "text/event-stream"
    chunks = chunks_of(response)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert streamed_text(response) == "hello there"
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}


def test_stream_includes_usage_only_on_request(client: httpx.Client) -> None:
    assert all("usage" not in chunk for chunk in chunks_of(ask(client, "hi", stream=True)))
    chunks = chunks_of(ask(client, "hi", stream=True, stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 1
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize(
    "model", ["openclaw", "openclaw/default", "openclaw/main", "openclaw:beta", "agent:beta", " Agent:BETA ", None]
)
def test_model_selects_agent_and_is_echoed(client: httpx.Client, model: str | None) -> None:
    response = ask(client, "hi", **({} if model is None else {"model": model}))
    assert response.json()["model"] == (model or "openclaw")
    agent = "beta" if model and "beta" in model.lower() else "main"
    assert response.headers["x-openclaw-session-key"].startswith(f"agent:{agent}:openai:")


def test_agent_header_takes_precedence_over_model(client: httpx.Client) -> None:
    response = ask(client, "hi", model="gpt-4o", headers={"x-openclaw-agent-id": "beta"})
    assert response.json()["model"] == "gpt-4o"
    assert response.headers["x-openclaw-session-key"].startswith("agent:beta:")


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        ({"model": "gpt-4o"}, {}, "model"),
        ({"model": "agent:nobody"}, {}, "model"),
        ({}, {"x-openclaw-agent-id": "nobody"}, "x-openclaw-agent-id"),
        ({}, {"x-openclaw-model": "nowhere/x"}, "x-openclaw-model"),
    ],
)
def test_unknown_agent_or_model_is_404(
    client: httpx.Client, fields: dict[str, str], headers: dict[str, str], param: str
) -> None:
    response = ask(client, "hi", headers=headers, **fields)
    assert error_of(response) == (404, "model_not_found", param)


def test_model_header_replaces_model_for_one_run(client: httpx.Client) -> None:
    assert text_of(ask(client, "hi", headers={"x-openclaw-model": "scripted/count-3"})).split() == ["1", "2", "3"]
    assert text_of(ask(client, "hi")) == "hi"


def test_token_limit_ends_answer_with_length(client: httpx.Client) -> None:
    response = ask(client, "one two three four", max_tokens=2)
    assert response.json()["choices"][0]["finish_reason"] == "length"
    assert text_of(response).split() == ["one", "two"]


def test_required_tool_is_called_and_result_continues_conversation(client: httpx.Client) -> None:
    first = ask(client, "how is it outside?", tools=[WEATHER], tool_choice="required")
    message = first.json()["choices"][0]["message"]
    assert first.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert message["content"] is None
    [call] = message["tool_calls"]
    assert call["function"]["name"] == "weather"
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    second = ask(client, "how is it outside?", message, result, tools=[WEATHER])
    assert text_of(second) == "sunny"


def test_streamed_tool_call_is_name_then_arguments(client: httpx.Client) -> None:
    chunks = chunks_of(ask(client, "hi", stream=True, tools=[WEATHER], tool_choice="required"))
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert deltas[0]["function"] == {"name": "weather", "arguments": ""}
    assert "".join(delta["function"]["arguments"] for delta in deltas) == "{}"
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_answer_dumped_with_nulls_can_be_sent_back(client: httpx.Client) -> None:
    nulls = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "tool_calls"))
    assert ask(client, "hi", {"role": "assistant", "content": "Hello.", **nulls}, "again").status_code == 200


def test_metadata_is_returned(client: httpx.Client) -> None:
    assert ask(client, "hi", metadata={"ticket": "7"}).json()["metadata"] == {"ticket": "7"}


def test_request_id_is_echoed_or_generated(client: httpx.Client) -> None:
    assert ask(client, "hi", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(ask(client, "hi").headers["x-request-id"]) > 20


def test_failure_after_stream_start_is_error_event_and_done(client: httpx.Client) -> None:
    response = ask(client, "hi", stream=True, headers={"x-openclaw-model": "scripted/fail-midway"})
    assert chunks_of(response)[-1]["error"]["code"] == "provider_error"


def test_failure_without_stream_keeps_status(client: httpx.Client) -> None:
    response = ask(client, "hi", headers={"x-openclaw-model": "scripted/fail-midway"})
    assert error_of(response) == (502, "provider_error", None)


def test_model_list_contains_every_agent(client: httpx.Client) -> None:
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert names == ["openclaw", "openclaw/default", "openclaw/main", "openclaw/beta"]


@pytest.mark.parametrize("name", ["openclaw", "openclaw/beta", "openclaw%2Fbeta", "agent:beta", "openclaw:main"])
def test_model_is_found_by_every_alias(client: httpx.Client, name: str) -> None:
    assert client.get(f"/v1/models/{name}").json()["id"] == name.replace("%2F", "/")


def test_unknown_model_is_404(client: httpx.Client) -> None:
    assert error_of(client.get("/v1/models/gpt-4o")) == (404, "model_not_found", "model")


def test_text_of_any_language_is_preserved(client: httpx.Client) -> None:
    text = "Xin chào, tôi là Nguyễn 😀"
    assert text_of(ask(client, text)) == text
    assert streamed_text(ask(client, text, stream=True)) == text


def test_many_callers_are_served_concurrently(gateway: LiveGateway) -> None:

    with gateway.client() as shared, ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda number: text_of(ask(shared, f"number {number}")), range(64)))
    assert answers == [f"number {number}" for number in range(64)]


def test_documented_calls_work(client: httpx.Client) -> None:
    body = {"model": "openclaw", "messages": [user("hi")]}
    headers = {"x-openclaw-agent-id": "main"}
    assert text_of(client.post(PATH, json=body, headers=headers)) == "hi"
    assert streamed_text(client.post(PATH, json={**body, "stream": True}, headers=headers)) == "hi"
