"""Request styles learned from provider errors; errors about one caller's request do not affect others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.provider_calls import ask, fail, open_provider, request
from support.upstream import Exchange, Upstream
from support.upstream_answers import TEXT, frame, ok

from service.core.messages import Function, Message, ProviderData, Role, Sampling, StopReason, Text, ToolCall, Usage
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


def has_data(exchange: Exchange) -> bool:
    return THOUGHT in str(exchange.body["messages"])


def refuse(exchange: Exchange, words: str) -> None:
    exchange.json(400, {"error": {"message": words}})


def shown(upstream: Upstream) -> list[bool]:
    """Return for each request whether it contained the data."""
    return [THOUGHT in str(received.body["messages"]) for received in upstream.requests]


@pytest.mark.parametrize("words", ABOUT_DATA)
def test_provider_data_is_omitted_after_model_refuses_it(
    provider: OpenAIProvider, upstream: Upstream, words: str
) -> None:
    upstream.answers["play"] = lambda exchange: refuse(exchange, words) if has_data(exchange) else ok(exchange)
    for _ in range(2):
        assert ask(provider, asking())[0] == TEXT
    assert shown(upstream) == [True, False, False]


@pytest.mark.parametrize("words", ABOUT_A_CALLERS_OWN)
def test_error_about_callers_names_keeps_provider_data(
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
def test_style_that_fails_too_is_not_remembered(
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
        "Unknown parameter: 'include_usage'.",
        "Unknown parameter: 'stream_options.include_usage'.",
        "Unrecognized request argument supplied: stream_options. Known are: model, messages, tools, stream",
    ],
)
def test_stream_options_is_omitted_after_model_refuses_it(
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


def test_several_refusals_of_one_model_are_remembered_together(provider: OpenAIProvider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        if "stream_options" in exchange.body:
            refuse(exchange, "Unknown parameter: 'stream_options'.")
        elif "max_tokens" in exchange.body:
            refuse(exchange, "Use 'max_completion_tokens' instead.")
        elif has_data(exchange):
            refuse(exchange, GROQ)
        else:
            ok(exchange)

    upstream.answers["play"] = answer
    for _ in range(2):
        assert ask(provider, asking(sampling=Sampling(max_tokens=9)))[0] == TEXT
    assert len(upstream.requests) == 5


def test_error_about_function_named_like_field_keeps_field(provider: OpenAIProvider, upstream: Upstream) -> None:
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
def test_provider_data_is_sent_again_when_model_requires_it(
    provider: OpenAIProvider, upstream: Upstream, words: str
) -> None:
    upstream.answers["play"] = lambda exchange: refuse(exchange, GROQ) if has_data(exchange) else ok(exchange)
    ask(provider, asking())
    upstream.answers["play"] = lambda exchange: ok(exchange) if has_data(exchange) else refuse(exchange, words)
    for _ in range(2):
        assert ask(provider, asking())[0] == TEXT
    assert shown(upstream) == [True, False, False, True, True]


def test_error_in_middle_of_stream_does_not_restart_answer(provider: OpenAIProvider, upstream: Upstream) -> None:
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


def test_error_in_first_event_of_stream_adapts_style(provider: OpenAIProvider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        if not has_data(exchange):
            return ok(exchange)
        exchange.head()
        exchange.send(frame({"error": {"code": 400, "message": GROQ}}))
        return exchange.last_chunk()

    upstream.answers["play"] = answer
    assert ask(provider, asking())[0] == TEXT
    assert shown(upstream) == [True, False]


REFUSED_HINTS = [
    ({"prompt_cache_key": "k"}, "Unrecognized request argument supplied: prompt_cache_key", "prompt_cache_key"),
    (
        {"safety_identifier": "u"},
        "Unsupported parameter: 'safety_identifier' is not supported with this model.",
        "safety_identifier",
    ),
    ({"verbosity": "low"}, "body.verbosity: Extra inputs are not permitted", "verbosity"),
    ({"metadata": {"a": "b"}}, "Additional properties are not allowed ('metadata' was unexpected)", "metadata"),
    ({"reasoning_effort": "low"}, "extra_forbidden: reasoning_effort", "reasoning_effort"),
]


@pytest.mark.parametrize(("extra", "words", "name"), REFUSED_HINTS)
@pytest.mark.parametrize("status", [400, 422])
def test_refused_optional_field_is_omitted_and_remembered(
    provider: OpenAIProvider, upstream: Upstream, extra: dict[str, Any], words: str, name: str, status: int
) -> None:
    def answer(exchange: Exchange) -> None:
        if name in exchange.body:
            exchange.json(status, {"error": {"message": words}})
        else:
            ok(exchange)

    upstream.answers["play"] = answer
    for _ in range(2):
        assert ask(provider, request("play", sampling=Sampling(extra=extra)))[0] == TEXT
    assert [name in received.body for received in upstream.requests] == [True, False, False]


def test_several_refused_fields_are_omitted_one_by_one(provider: OpenAIProvider, upstream: Upstream) -> None:
    names = ("prompt_cache_key", "safety_identifier", "verbosity", "parallel_tool_calls")

    def answer(exchange: Exchange) -> None:
        found = next((name for name in names if name in exchange.body), None)
        if found is None:
            ok(exchange)
        else:
            exchange.json(400, {"detail": [{"loc": ["body", found], "msg": "Extra inputs are not permitted"}]})

    upstream.answers["play"] = answer
    sampling = Sampling(extra=dict.fromkeys(names[:3], "low"), parallel_tool_calls=False)
    assert ask(provider, request("play", sampling=sampling, functions=(Function("f"),)))[0] == TEXT
    assert len(upstream.requests) == 5


@pytest.mark.parametrize(
    "words",
    [
        "Invalid schema for function 'f': 'verbosity' is not permitted.",
        "the model is not supported",
        "temperature must be between 0 and 2",
        "Unsupported parameter: 'logit_bias' is not supported with this model.",
    ],
)
def test_unrelated_errors_omit_no_field(provider: OpenAIProvider, upstream: Upstream, words: str) -> None:
    upstream.answers["play"] = lambda exchange: exchange.json(400, {"error": {"message": words}})
    sampling = Sampling(temperature=3, extra={"verbosity": "low", "logit_bias": {"5": 1}})
    _, error = fail(provider, request("play", sampling=sampling))
    assert error.code == "provider_rejected_request"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *(
            (name, f"Unsupported parameter: '{name}' is not supported with this model.")
            for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed")
        ),
        (
            "temperature",
            "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) is.",
        ),
        ("temperature", "`temperature` is deprecated for this model."),
        ("temperature", "temperature may only be set to 1 when thinking is enabled."),
        ("presence_penalty", "Argument not supported on this model: presence_penalty"),
        ("top_p", "`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
        ("top_p", "body.top_p: Extra inputs are not permitted"),
        ("frequency_penalty", "this model doesn't support frequency_penalty"),
    ],
)
def test_refused_sampling_is_left_to_the_model_with_a_log_line(
    provider: OpenAIProvider, upstream: Upstream, name: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answers["play"] = lambda exchange: refuse(exchange, words) if name in exchange.body else ok(exchange)
    sampling = Sampling(temperature=0.2, top_p=0.5, frequency_penalty=1, presence_penalty=1, seed=7)
    for _ in range(2):
        assert ask(provider, request("play", sampling=sampling))[0] == TEXT
    assert [name in received.body for received in upstream.requests] == [True, False, False]
    assert caplog.messages == [f"the model play refuses {name}, which is left out"]
    others = {"temperature", "top_p", "frequency_penalty", "presence_penalty", "seed"} - {name}
    assert others <= upstream.requests[-1].body.keys()


def hint(name: str, value: Any) -> Sampling:
    known = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "parallel_tool_calls")
    return Sampling(**{name: value}) if name in known else Sampling(extra={name: value})


REFUSED_VALUES = [
    (
        ("reasoning_effort", "xhigh", "low"),
        [
            "Unsupported value: 'reasoning_effort' does not support 'xhigh' with this model. Supported values: 'low'.",
            "`reasoning_effort` must be one of `none` or `low`",
            "body.reasoning_effort: Input should be 'low', 'medium' or 'high'",
            "Invalid value: 'xhigh'. Supported values are: 'low', 'medium', and 'high'.",
            "only 'low' and 'medium' are supported for reasoningEffort",
        ],
    ),
    (("seed", -1, 7), ["Invalid argument: seed must be non-negative"]),
    (("service_tier", "flex", "auto"), ["Invalid service_tier argument"]),
    (("user", "x" * 90, "ann"), ["Invalid 'user': string too long. Expected a string with maximum length 64."]),
    (("metadata", {"a": "b"}, {"a": "c"}), ["The 'metadata' parameter is only allowed when 'store' is enabled."]),
    (
        ("parallel_tool_calls", False, True),
        ["No endpoints found that support the provided 'parallel_tool_calls' value."],
    ),
]


@pytest.mark.parametrize(
    ("case", "words"), [(case, words) for case, messages in REFUSED_VALUES for words in messages], ids=str
)
def test_refused_value_is_left_out_of_its_request_only(
    provider: OpenAIProvider, upstream: Upstream, case: tuple[str, Any, Any], words: str
) -> None:
    name, bad, good = case
    upstream.answers["play"] = lambda exchange: (
        refuse(exchange, words) if exchange.body.get(name) == bad else ok(exchange)
    )
    for value in (bad, good, bad):
        asked = request("play", sampling=hint(name, value), functions=(Function("f"),))
        assert ask(provider, asked)[0] == TEXT
    assert [received.body.get(name) for received in upstream.requests] == [bad, None, good, bad, None]


def test_sampling_that_is_refused_together_is_sent_alone(provider: OpenAIProvider, upstream: Upstream) -> None:
    words = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    upstream.answers["play"] = lambda exchange: (
        refuse(exchange, words) if {"temperature", "top_p"} <= exchange.body.keys() else ok(exchange)
    )
    for sampling in (Sampling(temperature=0.1, top_p=0.5), Sampling(top_p=0.5), Sampling(temperature=0.1, top_p=0.5)):
        assert ask(provider, request("play", sampling=sampling))[0] == TEXT
    sent = [{"temperature", "top_p"} & received.body.keys() for received in upstream.requests]
    assert sent == [{"temperature", "top_p"}, {"temperature"}, {"top_p"}, {"temperature"}]


def test_of_other_combinations_the_first_field_is_kept_for_the_request(
    provider: OpenAIProvider, upstream: Upstream
) -> None:
    names = {"frequency_penalty", "presence_penalty"}
    words = "frequency_penalty and presence_penalty are not supported together"
    upstream.answers["play"] = lambda exchange: (
        refuse(exchange, words) if names <= exchange.body.keys() else ok(exchange)
    )
    ask(provider, request("play", sampling=Sampling(frequency_penalty=1, presence_penalty=1)))
    ask(provider, request("play", sampling=Sampling(presence_penalty=1)))
    sent = [names & received.body.keys() for received in upstream.requests]
    assert sent == [names, {"frequency_penalty"}, {"presence_penalty"}]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("presence_penalty", 0.5, "Argument not supported on this model: presencePenalty"),
        ("presence_penalty", 0.5, "Model grok-4 does not support parameter presencePenalty."),
        ("frequency_penalty", 0.5, "Penalty is not enabled for models/gemini-2.5-flash-preview"),
        ("temperature", 0.5, "invalid temperature: only 1 is allowed for this model"),
        ("parallel_tool_calls", False, "this model does not support parallel tool calls"),
        ("reasoning_effort", "low", "reasoningEffort is not supported"),
    ],
)
def test_refused_field_is_recognised_in_other_words_and_remembered(
    provider: OpenAIProvider, upstream: Upstream, name: str, value: Any, words: str
) -> None:
    upstream.answers["play"] = lambda exchange: refuse(exchange, words) if name in exchange.body else ok(exchange)
    for _ in range(2):
        asked = request("play", sampling=hint(name, value), functions=(Function("f"),))
        assert ask(provider, asked)[0] == TEXT
    assert [name in received.body for received in upstream.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("words", "is_remembered"),
    [
        ("Invalid 'messages[0].name': string does not match pattern. Expected '^[^\\s<|>]+$'.", False),
        ("messages.0.user.name: Extra inputs are not permitted", True),
        ("messages.0.name: Extra inputs are not permitted", True),
        ("Only messages of role 'user' can have a name.", False),
        ("Invalid request content: Only message of role user can have a name.", False),
    ],
)
def test_refused_names_of_participants_are_left_out(
    provider: OpenAIProvider, upstream: Upstream, words: str, is_remembered: bool
) -> None:
    named = Message(Role.USER, (Text("hi"),), name="John Doe")
    upstream.answers["play"] = lambda exchange: (
        refuse(exchange, words) if "John Doe" in str(exchange.body["messages"]) else ok(exchange)
    )
    for _ in range(2):
        assert ask(provider, request("play", named))[0] == TEXT
    assert len(upstream.requests) == (3 if is_remembered else 4)


@pytest.mark.parametrize(
    "words",
    [
        "Invalid 'messages[0].tool_calls[0].function.name': string does not match pattern",
        "Invalid value: 'play'. Supported values are: 'a'.",
        "temperature must be between 0 and 2",
    ],
)
def test_values_of_other_fields_leave_out_nothing(provider: OpenAIProvider, upstream: Upstream, words: str) -> None:
    named = Message(Role.USER, (Text("hi"),), name="ann")
    upstream.answers["play"] = lambda exchange: refuse(exchange, words)
    fail(provider, request("play", named, sampling=Sampling(temperature=3, extra={"reasoning_effort": "low"})))
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "words",
    ["Invalid value for 'content': expected a string, got null.", "messages.1.content: Input should be a valid string"],
)
def test_null_content_beside_calls_becomes_empty_text_for_hosts_that_refuse_it(
    provider: OpenAIProvider, upstream: Upstream, words: str
) -> None:
    def answer(exchange: Exchange) -> None:
        if any(message["content"] is None for message in exchange.body["messages"]):
            exchange.json(400, {"error": {"message": words}})
        else:
            ok(exchange)

    upstream.answers["play"] = answer
    assert ask(provider, asking())[0] == TEXT
    assert upstream.requests[-1].body["messages"][1]["content"] == ""


def test_references_are_resolved_for_hosts_that_refuse_them(provider: OpenAIProvider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        if "$ref" in str(exchange.body):
            exchange.json(400, {"error": {"message": "tools[0]: $ref is not supported"}})
        else:
            ok(exchange)

    upstream.answers["play"] = answer
    parameters = {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}
    assert ask(provider, request("play", functions=(Function("f", parameters=parameters),)))[0] == TEXT
    [tool] = upstream.requests[-1].body["tools"]
    assert tool["function"]["parameters"] == {"type": "object", "properties": {"a": {"type": "string"}}}


def test_long_ids_are_shortened_for_call_and_result(provider: OpenAIProvider, upstream: Upstream) -> None:
    long = "x" * 100
    call = Message(Role.ASSISTANT, tool_calls=(ToolCall(long, "ls", "{}"),))
    ask(provider, request("ok", SHOWN[0], call, Message(Role.TOOL, (Text("nothing"),), tool_call_id=long)))
    _, shown, result = upstream.requests[-1].body["messages"]
    assert shown["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) <= 40


@pytest.mark.parametrize(
    "words",
    [
        "* GenerateContentRequest.contents: contents is not specified",
        "No user query found in messages.",
        "Expected last role User or Tool (or Assistant with prefix True) for serving but got system",
        "messages: at least one message is required",
    ],
)
def test_user_message_is_added_to_instructions_for_hosts_that_require_one(
    provider: OpenAIProvider, upstream: Upstream, words: str
) -> None:
    def answer(exchange: Exchange) -> None:
        has_user = any(message["role"] == "user" for message in exchange.body["messages"])
        ok(exchange) if has_user else refuse(exchange, words)

    upstream.answers["play"] = answer
    alone = ModelRequest("play", "Say hello.", ())
    for _ in range(2):
        assert ask(provider, alone)[0] == TEXT
    assert [len(received.body["messages"]) for received in upstream.requests] == [1, 2, 2]
    ask(provider, request("play", system="Say hello."))
    assert [message["role"] for message in upstream.requests[-1].body["messages"]] == ["system", "user"]


def test_error_about_a_user_changes_nothing_in_a_conversation_with_one(
    provider: OpenAIProvider, upstream: Upstream
) -> None:
    upstream.answers["play"] = lambda exchange: refuse(exchange, "The user is not allowed to use this model.")
    fail(provider, request("play"))
    assert len(upstream.requests) == 1
