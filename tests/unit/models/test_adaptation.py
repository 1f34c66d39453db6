"""What is learned from a model's refusals, and what is not: of one caller's request nobody else must suffer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.provider_calls import ask, fail, open_provider, request
from support.upstream import Exchange, Upstream
from support.upstream_answers import TEXT, frame, ok

from service.core.messages import Message, ProviderData, Role, Sampling, StopReason, Text, ToolCall, Usage
from service.models.openai.provider import OpenAIProvider
from service.models.provider import ModelEnded, ModelRequest

THOUGHT = "The user wants the weather."
SHOWN = (
    Message(Role.USER, (Text("look"),)),
    Message(
        Role.ASSISTANT,
        tool_calls=(ToolCall("c1", "ls", "{}"),),
        provider_data=ProviderData({"reasoning_content": THOUGHT}, {}),
    ),
    Message(Role.TOOL, (Text("nothing"),), tool_call_id="c1"),
)
GROQ = (
    "'messages.1' : for 'role:assistant' the following must be satisfied"
    "[('messages.1' : property 'reasoning_content' is unsupported)]"
)
ABOUT_DATA = [
    GROQ,
    "property 'reasoning_content' is unsupported",
    "messages[1].reasoning: reasoning is not supported with this model",
    "Unknown parameter: 'messages[1].reasoning_details'.",
    "Additional properties are not allowed ('reasoning_content' was unexpected) - 'messages.1'",
    "Invalid JSON payload received. Unknown name \"extra_content\" at 'messages[1].tool_calls[0]': Cannot find field.",
]
ABOUT_A_CALLERS_OWN = [
    "Invalid schema for function 'solve': In context=('properties', 'reasoning'), 'default' is not permitted.",
    "Invalid schema for function 'solve': 'reasoning' is not allowed in 'required'.",
    "Unknown enum value in tool schema for property 'reasoning'.",
    "Invalid schema for response_format 'answer': 'reasoning_content' is not permitted in messages[1].",
    "Unknown name \"reasoning_content\" at 'tools[0].function.parameters.properties[1]': unexpected field",
    "Extra fields: 'reasoning', of the caller's metadata",
    "messages[1].content: unsupported language in a text about reasoning",
]


@pytest.fixture
def provider(upstream: Upstream) -> Iterator[OpenAIProvider]:
    opened = open_provider(upstream.url)
    yield opened
    opened.close()


def asking(**fields: Any) -> ModelRequest:
    return request("play", *SHOWN, **fields)


def shows_data(exchange: Exchange) -> bool:
    return THOUGHT in str(exchange.body["messages"])


def refuse(exchange: Exchange, words: str) -> None:
    exchange.json(400, {"error": {"message": words}})


def shown(upstream: Upstream) -> list[bool]:
    """Of each request, whether it showed the data."""
    return [THOUGHT in str(received.body["messages"]) for received in upstream.requests]


@pytest.mark.parametrize("words", ABOUT_DATA)
def test_a_model_that_refuses_its_data_is_asked_without_it_from_then_on(
    provider: OpenAIProvider, upstream: Upstream, words: str
) -> None:
    upstream.answers["play"] = lambda exchange: refuse(exchange, words) if shows_data(exchange) else ok(exchange)
    for _ in range(2):
        assert ask(provider, asking())[0] == TEXT
    assert shown(upstream) == [True, False, False]


@pytest.mark.parametrize("words", ABOUT_A_CALLERS_OWN)
def test_a_refusal_of_what_a_caller_named_is_not_about_the_data(
    provider: OpenAIProvider, upstream: Upstream, words: str
) -> None:
    upstream.answers["play"] = lambda exchange: refuse(exchange, words)
    assert words in fail(provider, asking())[1].message
    assert shown(upstream) == [True]


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (GROQ, {}),
        ("Use 'max_completion_tokens' instead.", {"sampling": Sampling(max_tokens=9)}),
        ("Unknown argument: max_completion_tokens", {"sampling": Sampling(max_tokens=9)}),
        ("Unknown parameter: 'stream_options'.", {}),
    ],
)
def test_what_does_not_help_is_not_kept(
    provider: OpenAIProvider, upstream: Upstream, words: str, fields: dict[str, Any]
) -> None:
    upstream.answers["play"] = lambda exchange: refuse(exchange, words)
    fail(provider, asking(**fields))
    upstream.answers["play"] = ok
    assert ask(provider, asking(**fields))[0] == TEXT
    assert upstream.requests[-1].body == upstream.requests[0].body


@pytest.mark.parametrize(
    "words",
    [
        "Unknown parameter: 'stream_options'.",
        "stream_options: Extra inputs are not permitted",
        "Unrecognized request argument supplied: stream_options. Known are: model, messages, tools, stream",
    ],
)
def test_a_model_that_refuses_to_be_asked_for_usage_is_not_asked_from_then_on(
    provider: OpenAIProvider, upstream: Upstream, words: str
) -> None:
    upstream.answers["play"] = lambda exchange: (
        refuse(exchange, words) if "stream_options" in exchange.body else silent(exchange)
    )
    for _ in range(2):
        assert ask(provider, "play") == (TEXT, ModelEnded(StopReason.STOP, (), Usage()))
    upstream.answers["play"] = ok  # which tells it unasked
    assert ask(provider, "play")[1].usage == Usage(7, 5, 3)
    assert ["stream_options" in received.body for received in upstream.requests] == [True, False, False, False]
    ask(provider, "ok")
    assert "stream_options" in upstream.requests[-1].body


def silent(exchange: Exchange) -> None:
    """An answer that is not counted."""
    exchange.head()
    exchange.words()
    exchange.event({}, "stop")
    exchange.send(b"data: [DONE]\n\n")
    exchange.last_chunk()


def test_a_model_may_have_a_word_to_say_on_everything(provider: OpenAIProvider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        if "stream_options" in exchange.body:
            refuse(exchange, "Unknown parameter: 'stream_options'.")
        elif "max_tokens" in exchange.body:
            refuse(exchange, "Use 'max_completion_tokens' instead.")
        elif shows_data(exchange):
            refuse(exchange, GROQ)
        else:
            ok(exchange)

    upstream.answers["play"] = answer
    for _ in range(2):
        assert ask(provider, asking(sampling=Sampling(max_tokens=9)))[0] == TEXT
    assert len(upstream.requests) == 5


def test_a_bound_that_a_caller_named_a_function_is_not_about_the_bound(
    provider: OpenAIProvider, upstream: Upstream
) -> None:
    words = "Invalid schema for function 'use-max_completion_tokens': 'default' is not permitted."
    upstream.answers["play"] = lambda exchange: refuse(exchange, words)
    fail(provider, asking(sampling=Sampling(max_tokens=9)))
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "words",
    [
        "The reasoning_content in the thinking mode must be passed back to the API.",
        "Function call is missing a thought_signature in functionCall parts.",
    ],
)
def test_a_name_that_stands_for_a_model_that_wants_its_data_again_gets_it(
    provider: OpenAIProvider, upstream: Upstream, words: str
) -> None:
    upstream.answers["play"] = lambda exchange: refuse(exchange, GROQ) if shows_data(exchange) else ok(exchange)
    ask(provider, asking())
    upstream.answers["play"] = lambda exchange: ok(exchange) if shows_data(exchange) else refuse(exchange, words)
    for _ in range(2):
        assert ask(provider, asking())[0] == TEXT
    assert shown(upstream) == [True, False, False, True, True]


def test_a_refusal_in_the_middle_of_an_answer_does_not_begin_it_anew(
    provider: OpenAIProvider, upstream: Upstream
) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.event({"content": "Hello "})
        exchange.wait(0.1)
        exchange.send(frame({"error": {"code": 400, "message": GROQ}}))
        exchange.last_chunk()

    upstream.answers["play"] = answer
    text, error = fail(provider, asking())
    assert (text, GROQ in error.message) == ("Hello ", True)
    assert shown(upstream) == [True]


def test_a_refusal_at_the_beginning_of_an_answer_is_one(provider: OpenAIProvider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        if not shows_data(exchange):
            return ok(exchange)
        exchange.head()
        exchange.send(frame({"error": {"code": 400, "message": GROQ}}))
        return exchange.last_chunk()

    upstream.answers["play"] = answer
    assert ask(provider, asking())[0] == TEXT
    assert shown(upstream) == [True, False]
