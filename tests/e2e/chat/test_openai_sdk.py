"""OpenAI's SDK against a live gateway: answers, streams, tools, sessions, errors."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import openai
import orjson
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Model
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
)
from pydantic import BaseModel
from support.live import TOKEN, LiveGateway

#: The keys that OpenAI's published description requires of each part of an answer; the SDK itself would not miss them.
COMPLETION_KEYS = {"id", "object", "created", "model", "choices"}
CHOICE_KEYS = {"index", "message", "finish_reason", "logprobs"}
MESSAGE_KEYS = {"role", "content", "refusal"}
CHUNK_CHOICE_KEYS = {"index", "delta", "finish_reason"}
USAGE_KEYS = {"prompt_tokens", "completion_tokens", "total_tokens"}
TOOL_CALL_KEYS = {"id", "type", "function"}
MODEL_KEYS = {"id", "object", "created", "owned_by"}
ERROR_KEYS = {"message", "type", "param", "code"}

WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
    },
}


class Pet(BaseModel):
    """What an answer is asked to look like."""

    name: str
    legs: int


@pytest.fixture
def sdk(gateway: LiveGateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN, max_retries=0, timeout=30) as client:
        yield client


def said(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def scripted(behaviour: str) -> dict[str, str]:
    return {"x-openclaw-model": f"scripted/{behaviour}"}


def prompt_tokens(completion: ChatCompletion) -> int:
    """The words the model was sent: the scripted provider counts them, so they show what it was reminded of."""
    assert completion.usage is not None
    return completion.usage.prompt_tokens


def text_of(stream: openai.Stream[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)


def test_completion_has_every_key_and_type_of_openai(sdk: OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="openclaw", messages=said("hello there")).text
    ChatCompletion.model_validate_json(raw, strict=True)
    body = orjson.loads(raw)
    assert body.keys() >= COMPLETION_KEYS
    assert body["usage"].keys() >= USAGE_KEYS
    [choice] = body["choices"]
    assert choice.keys() >= CHOICE_KEYS
    assert choice["message"].keys() >= MESSAGE_KEYS
    assert (choice["logprobs"], choice["message"]["refusal"]) == (None, None)


def test_chunk_has_every_key_and_type_of_openai(sdk: OpenAI) -> None:
    create = sdk.chat.completions.with_streaming_response.create
    with create(model="openclaw", messages=said("hello there"), stream=True) as response:
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    assert len(events) > 2
    for event in events:
        ChatCompletionChunk.model_validate_json(event, strict=True)
        body = orjson.loads(event)
        assert body.keys() >= COMPLETION_KEYS
        assert all(choice.keys() >= CHUNK_CHOICE_KEYS for choice in body["choices"])


def test_json_and_stream_have_same_answer(sdk: OpenAI) -> None:
    text = "Xin chào, tôi là Nguyễn 😀"
    whole = sdk.chat.completions.create(model="openclaw", messages=said(text))
    with sdk.chat.completions.create(model="openclaw", messages=said(text), stream=True) as stream:
        assert text_of(stream) == whole.choices[0].message.content == text


def test_usage_is_last_chunk_on_request(sdk: OpenAI) -> None:
    options: Any = {"include_usage": True}
    with sdk.chat.completions.create(
        model="openclaw", messages=said("one two"), stream=True, stream_options=options
    ) as stream:
        chunks = list(stream)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


def test_stream_helper_assembles_answer(sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(model="openclaw", messages=said("one two")) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == "one two"
    assert final.choices[0].finish_reason == "stop"


def test_stream_helper_assembles_tool_call(sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(
        model="openclaw", messages=said("sunny?"), tools=[WEATHER], extra_headers=scripted("tools")
    ) as stream:
        [done] = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert (done.name, done.arguments) == ("weather", "{}")
    assert final.choices[0].finish_reason == "tool_calls"


def test_answer_is_parsed_into_requested_type(sdk: OpenAI) -> None:
    text = '{"name": "Cat", "legs": 4}'
    parsed = sdk.chat.completions.parse(model="openclaw", messages=said(text), response_format=Pet)
    assert parsed.choices[0].message.parsed == Pet(name="Cat", legs=4)


def test_tool_call_round_trip_completes_answer(sdk: OpenAI) -> None:
    headers = scripted("tools")
    messages = said("how is it outside?")
    first = sdk.chat.completions.create(model="openclaw", messages=messages, tools=[WEATHER], extra_headers=headers)
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    [call] = message.tool_calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.to_dict().keys() >= TOOL_CALL_KEYS
    assert (call.function.name, call.function.arguments) == ("weather", "{}")
    result: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": call.id, "content": "sunny and warm"}
    asked: Any = message.to_dict()
    second = sdk.chat.completions.create(
        model="openclaw", messages=[*messages, asked, result], tools=[WEATHER], extra_headers=headers
    )
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content == "sunny and warm"


def test_models_are_listed_and_found_by_name(sdk: OpenAI) -> None:
    listed = sdk.models.list().data
    assert [model.id for model in listed] == ["openclaw", "openclaw/default", "openclaw/main", "openclaw/beta"]
    assert all(model.to_dict().keys() >= MODEL_KEYS for model in listed)
    for name in ("openclaw/main", "agent:beta"):
        raw = sdk.models.with_raw_response.retrieve(name).text
        assert Model.model_validate_json(raw, strict=True).id == name


def test_raw_response_has_request_id_and_session(sdk: OpenAI) -> None:
    create = sdk.chat.completions.with_raw_response.create
    response = create(model="openclaw", messages=said("hi"), extra_headers={"x-request-id": "request-7"})
    assert response.headers["x-request-id"] == response.request_id == "request-7"
    assert response.headers["x-openclaw-session-key"].startswith("agent:main:openai:")
    assert response.parse().choices[0].message.content == "hi"


def test_agent_header_selects_agent_whatever_the_model(sdk: OpenAI) -> None:
    create = sdk.chat.completions.with_raw_response.create
    response = create(model="gpt-4o", messages=said("hi"), extra_headers={"x-openclaw-agent-id": "beta"})
    assert response.headers["x-openclaw-session-key"].startswith("agent:beta:")
    assert response.parse().model == "gpt-4o"


def test_session_key_keeps_history_across_requests(sdk: OpenAI) -> None:
    key = f"sdk-{uuid.uuid4()}"
    create = sdk.chat.completions.create
    alone = create(model="openclaw", messages=said("three four"))
    create(model="openclaw", messages=said("one two"), extra_headers={"x-openclaw-session-key": key})
    again = create(model="openclaw", messages=said("three four"), extra_headers={"x-openclaw-session-key": key})
    assert prompt_tokens(again) == prompt_tokens(alone) + len(["one", "two"]) + len(["one", "two"])


def test_vietnamese_session_key_is_percent_encoded(sdk: OpenAI) -> None:
    create = sdk.chat.completions.with_raw_response.create
    name = f"Nguyễn Văn A {uuid.uuid4()}"
    first = create(model="openclaw", messages=said("xin chào"), extra_headers={"x-openclaw-session-key": quote(name)})
    returned = first.headers["x-openclaw-session-key"]
    assert unquote(returned).startswith(f"agent:main:{name.lower()}~")
    second = create(model="openclaw", messages=said("lại"), extra_headers={"x-openclaw-session-key": returned})
    assert second.headers["x-openclaw-session-key"] == returned
    assert prompt_tokens(second.parse()) > prompt_tokens(first.parse())


def test_user_continues_own_session(sdk: OpenAI) -> None:
    create = sdk.chat.completions.with_raw_response.create
    name = f"anna-{uuid.uuid4()}"
    first = create(model="openclaw", messages=said("one two"), user=name)
    second = create(model="openclaw", messages=said("one two"), user=name)
    assert second.headers["x-openclaw-session-key"] == f"agent:main:openai-user:{name}"
    assert prompt_tokens(second.parse()) == prompt_tokens(first.parse()) + 4


def test_wrong_token_is_authentication_error(gateway: LiveGateway) -> None:
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("fields", "headers", "error", "expected"),
    [
        ({"model": "gpt-4o"}, {}, openai.NotFoundError, ("model_not_found", "model")),
        ({"temperature": 3}, {}, openai.BadRequestError, ("invalid_value", "temperature")),
        ({"n": 2}, {}, openai.BadRequestError, ("unsupported_parameter", "n")),
        ({"messages": []}, {}, openai.BadRequestError, ("invalid_value", "messages")),
        ({}, {"x-forwarded-for": "192.0.2.1"}, openai.PermissionDeniedError, ("untrusted_proxy_headers", None)),
    ],
)
def test_refusal_is_sdk_exception(
    sdk: OpenAI,
    fields: dict[str, Any],
    headers: dict[str, str],
    error: type[openai.APIStatusError],
    expected: tuple[str, str | None],
) -> None:
    arguments: dict[str, Any] = {"model": "openclaw", "messages": said("hi"), **fields}
    with pytest.raises(error) as caught:
        sdk.chat.completions.create(**arguments, extra_headers=headers)
    assert (caught.value.code, caught.value.param) == expected
    assert isinstance(caught.value.body, dict)
    assert caught.value.body.keys() == ERROR_KEYS
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("provider_rejected_request", 400, openai.BadRequestError),
        ("session_busy", 409, openai.ConflictError),
        ("rate_limit_exceeded", 429, openai.RateLimitError),
        ("provider_error", 502, openai.InternalServerError),
        ("provider_unavailable", 503, openai.InternalServerError),
        ("provider_timeout", 504, openai.InternalServerError),
    ],
)
def test_provider_failure_is_sdk_exception(
    sdk: OpenAI, code: str, status: int, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        sdk.chat.completions.create(model="openclaw", messages=said("hi"), extra_headers=scripted(f"fail-{code}"))
    assert (caught.value.status_code, caught.value.code) == (status, code)


def test_failure_in_mid_stream_is_raised_while_reading(sdk: OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="openclaw", messages=said("hi"), stream=True, extra_headers=scripted("fail-midway")
    )
    with stream, pytest.raises(openai.APIError) as caught:
        text_of(stream)
    assert caught.value.code == "provider_error"


async def stream_and_leave(url: str, key: str) -> tuple[str, str]:
    """What an asynchronous client reads to the end, and what it is answered after leaving a run that never ends."""
    headers = {"x-openclaw-session-key": key}
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0, timeout=30) as client:
        create = client.chat.completions.create
        chunks = await create(model="openclaw", messages=said("one two"), stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        endless = await create(
            model="openclaw", messages=said("wait"), stream=True, extra_headers=headers | scripted("stuck")
        )
        async with endless:
            async for _ in endless:
                break
        after = await create(model="openclaw", messages=said("next"), extra_headers=headers)
        return text, after.choices[0].message.content or ""


def test_closing_async_stream_ends_run_and_frees_session(gateway: LiveGateway) -> None:
    assert asyncio.run(stream_and_leave(gateway.url, f"left-{uuid.uuid4()}")) == ("one two", "next")
