"""The Anthropic dialect over real sockets: requests, responses and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest
from support.polling import until
from support.provider_calls import (
    KEY,
    PICTURE,
    ask,
    check_broken_off,
    check_refused,
    check_streams_and_ends,
    fail,
    request,
    sent,
)
from support.upstream import Exchange, Upstream
from support.upstream_answers import RETRY_AFTER, TEXT, WORDS
from support.upstream_answers_anthropic import ANSWERS, end, start, telling, text

from service.config.models import ProviderConfig
from service.core.errors import GatewayError
from service.core.messages import (
    NO_USER_MESSAGE,
    Function,
    Image,
    Message,
    ProviderData,
    Role,
    Sampling,
    StopReason,
    Text,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    Usage,
    text_message,
)
from service.models.anthropic.provider import AnthropicProvider
from service.models.provider import ModelEnded, ModelRequest

STUB_USAGE = Usage(9, 5, 3, cache_write_tokens=2)


def telling_error(words: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": words}}


KEPT = {"cache_control": {"type": "ephemeral"}}


def open_provider(url: str, **fields: Any) -> AnthropicProvider:
    return AnthropicProvider.from_config(ProviderConfig.model_validate({"baseUrl": url, "apiKey": KEY, **fields}))


@pytest.fixture
def provider(upstream: Upstream) -> Iterator[AnthropicProvider]:
    opened = open_provider(upstream.url, timeoutSeconds=5)
    yield opened
    opened.close()


# what is understood


@pytest.mark.parametrize("model", ["ok", "split", "stop-sequence", "thinking"])
def test_complete_answer_has_text_and_usage(provider: AnthropicProvider, model: str) -> None:
    assert ask(provider, model) == (TEXT, ModelEnded(StopReason.STOP, (), STUB_USAGE))


@pytest.mark.parametrize(
    ("model", "reason"), [("max-tokens", StopReason.LENGTH), ("refusal", StopReason.CONTENT_FILTER)]
)
def test_truncated_answer_has_length_reason_and_no_partial_call(
    provider: AnthropicProvider, model: str, reason: StopReason
) -> None:
    assert ask(provider, model) == (TEXT, ModelEnded(reason, (), STUB_USAGE))


@pytest.mark.parametrize(
    ("told", "reason"),
    [("pause_turn", StopReason.LENGTH), ("model_context_window_exceeded", StopReason.LENGTH)],
)
def test_unfinished_answer_is_not_reported_as_complete(
    provider: AnthropicProvider, upstream: Upstream, told: str, reason: StopReason
) -> None:
    upstream.answers["ending"] = telling(start(), *text(), *end(told))
    assert ask(provider, "ending") == (TEXT, ModelEnded(reason, (), STUB_USAGE))


def test_answer_without_message_stop_is_complete(provider: AnthropicProvider) -> None:
    assert ask(provider, "no-stop") == (TEXT, ModelEnded(StopReason.LENGTH, (), STUB_USAGE))


def test_tool_calls_are_assembled_from_deltas(provider: AnthropicProvider) -> None:
    calls = (ToolCall("toolu_first", "first", '{"city": "Hanoi"}'), ToolCall("toolu_second", "second", "{}"))
    assert ask(provider, "tools") == ("Let me see.", ModelEnded(StopReason.TOOL_CALLS, calls, STUB_USAGE))


def test_text_is_streamed_while_answer_continues(provider: AnthropicProvider, upstream: Upstream) -> None:
    check_streams_and_ends(provider, upstream)


def test_connection_is_reused_after_complete_answers(provider: AnthropicProvider, upstream: Upstream) -> None:
    for _ in range(3):
        ask(provider, "ok")
    assert upstream.connections == 1


# what is sent


def test_minimal_request_has_only_required_fields(provider: AnthropicProvider, upstream: Upstream) -> None:
    assert sent(provider, upstream, request("ok")) == {
        "model": "ok",
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello?", **KEPT}]}],
        "stream": True,
    }
    received = upstream.requests[-1]
    assert (received.method, received.path) == ("POST", "/v1/messages")
    assert received.headers["x-api-key"] == KEY
    assert received.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in received.headers


def test_configured_headers_override_key_and_version(upstream: Upstream) -> None:
    headers = {"Authorization": "Bearer other", "Anthropic-Version": "2026-10-21"}
    provider = open_provider(upstream.url.removesuffix("/v1"), headers=headers)
    ask(provider, "ok")
    received = upstream.requests[-1]
    assert received.path == "/v1/messages"
    assert received.headers["authorization"] == "Bearer other"
    assert received.headers["anthropic-version"] == "2026-10-21"
    assert "x-api-key" not in received.headers
    provider.close()


def test_consecutive_messages_of_one_role_are_merged(provider: AnthropicProvider, upstream: Upstream) -> None:
    messages = (
        Message(Role.USER, (Text("What is"), Text("this?"), Image(PICTURE)), name="ann"),
        text_message(Role.USER, "Quick!"),
        Message(Role.ASSISTANT, (Text("Let me see."),), tool_calls=(ToolCall("call.1", "look", '{"at": 1}'),)),
        Message(Role.TOOL, (Text("a cat"),), tool_call_id="call.1"),
        Message(Role.ASSISTANT, (), tool_calls=(ToolCall("c2", "look", "{}"), ToolCall("c3", "look", "[oops"))),
        Message(Role.TOOL, (), tool_call_id="c2"),
        Message(Role.TOOL, (Text("no"),), tool_call_id="c3"),
        text_message(Role.USER, "  "),
        text_message(Role.USER, "And now?"),
    )
    functions = (Function("look"),)
    body = sent(provider, upstream, request("ok", *messages, system="Be kind.", functions=functions))
    assert body["system"] == [{"type": "text", "text": "Be kind.", **KEPT}]
    picture = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "a cat"}]}
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert [turn["content"] for turn in body["messages"]] == [
        [
            {"type": "text", "text": "What is"},
            {"type": "text", "text": "this?"},
            {"type": "image", "source": picture},
            {"type": "text", "text": "Quick!"},
        ],
        [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": 1}},
        ],
        [result | KEPT],
        [
            {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
            {"type": "tool_use", "id": "c3", "name": "look", "input": {"not_an_object": "[oops"}},
        ],
        [
            {"type": "tool_result", "tool_use_id": "c2"},
            {"type": "tool_result", "tool_use_id": "c3", "content": [{"type": "text", "text": "no"}]},
            {"type": "text", "text": "And now?", **KEPT},
        ],
    ]


@pytest.mark.parametrize(
    "answers",
    [
        [["1"], ["1"], ["1"]],
        [["a:1"], ["a/1"], ["a_1"], ["a:1"]],
        [["1", "1"], ["1_2"]],
        [[""], ["_"]],
        [["x_2", "x", "x"]],
    ],
)
def test_call_ids_are_unique_and_match_their_results(
    provider: AnthropicProvider, upstream: Upstream, answers: list[list[str]]
) -> None:
    messages = [text_message(Role.USER, "Look!")]
    count = 0
    for ids in answers:
        calls = [ToolCall(one, "look", f'{{"n": {count + place}}}') for place, one in enumerate(ids)]
        messages.append(Message(Role.ASSISTANT, (), tool_calls=tuple(calls)))
        for one in ids:
            messages.append(Message(Role.TOOL, (Text(str(count)),), tool_call_id=one))
            count += 1
    turns = sent(provider, upstream, request("ok", *messages, functions=(Function("look"),)))["messages"]
    blocks = [block for turn in turns for block in turn["content"]]
    calls_shown = {block["id"]: block["input"]["n"] for block in blocks if block["type"] == "tool_use"}
    results = {block["tool_use_id"]: block["content"] for block in blocks if block["type"] == "tool_result"}
    assert len(calls_shown) == count
    assert {one: [{"type": "text", "text": str(n)}] for one, n in calls_shown.items()} == results
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", one) for one in calls_shown)


def test_empty_assistant_message_is_not_sent(provider: AnthropicProvider, upstream: Upstream) -> None:
    messages = (text_message(Role.USER, "Hi."), Message(Role.ASSISTANT, ()), text_message(Role.USER, "Well?"))
    [turn] = sent(provider, upstream, request("ok", *messages))["messages"]
    assert [block["text"] for block in turn["content"]] == ["Hi.", "Well?"]


def test_conversation_starts_with_user_message(provider: AnthropicProvider, upstream: Upstream) -> None:
    messages = (text_message(Role.ASSISTANT, "Welcome."), text_message(Role.USER, "Hi."))
    turns = sent(provider, upstream, request("ok", *messages))["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == [{"type": "text", "text": "Welcome."}]


def test_instructions_alone_get_a_user_message(provider: AnthropicProvider, upstream: Upstream) -> None:
    body = sent(provider, upstream, ModelRequest("ok", "Say hello.", ()))
    assert [turn["role"] for turn in body["messages"]] == ["user"]
    assert NO_USER_MESSAGE in str(body["messages"])


def test_earlier_calls_are_declared_without_offered_functions(provider: AnthropicProvider, upstream: Upstream) -> None:
    call = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("c1", "look", "{}"),))
    messages = (text_message(Role.USER, "Look!"), call, Message(Role.TOOL, (Text("a cat"),), tool_call_id="c1"))
    body = sent(provider, upstream, request("ok", *messages))
    assert body["tools"] == [{"name": "look", "input_schema": {"type": "object", "properties": {}}, **KEPT}]
    assert body["tool_choice"] == {"type": "none"}


def marks_of(value: Any) -> list[Any]:
    """Return the blocks with a cache mark, shortened to their text, name or result."""
    if isinstance(value, list):
        return [mark for item in value for mark in marks_of(item)]
    if not isinstance(value, dict):
        return []
    inside = [mark for item in value.values() for mark in marks_of(item)]
    own = value.get("text") or value.get("name") or value.get("tool_use_id")
    return [*inside, own] if "cache_control" in value else inside


def steps(count: int) -> tuple[Message, ...]:
    """A question and what an agent has done about it in `count` turns, two calls in each."""
    done = [text_message(Role.USER, "Look!")]
    for step in range(count):
        ids = (f"a{step}", f"b{step}")
        done.append(Message(Role.ASSISTANT, (), tool_calls=tuple(ToolCall(one, "look", "{}") for one in ids)))
        done += [Message(Role.TOOL, (Text("a cat"),), tool_call_id=one) for one in ids]
    return tuple(done)


def test_cache_marks_let_each_turn_read_previous_turns_cache(provider: AnthropicProvider, upstream: Upstream) -> None:
    fields: dict[str, Any] = {"system": "Be kind.", "functions": (Function("look"),)}
    marks = [marks_of(sent(provider, upstream, request("ok", *steps(count), **fields))) for count in range(4)]
    assert [mark.pop(0) for mark in marks] == ["Be kind."] * 4
    assert marks == [["Look!"], ["Look!", "b0"], ["b0", "b1"], ["b1", "b2"]]


def test_tools_are_cached_without_system_text(provider: AnthropicProvider, upstream: Upstream) -> None:
    body = sent(provider, upstream, request("ok", functions=(Function("look"), Function("wait"))))
    assert marks_of(body["tools"]) == ["wait"]


def test_thinking_blocks_get_no_cache_mark(provider: AnthropicProvider, upstream: Upstream) -> None:
    blocks = [{"type": "tool_use"}, {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]
    data = ProviderData({"content": blocks}, {"c1": {"place": 0}})
    thought = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("c1", "look", "{}"),), provider_data=data)
    messages = sent(provider, upstream, request("ok", *steps(0), thought))["messages"]
    assert [block["type"] for block in messages[-1]["content"]] == ["tool_use", "thinking"]
    assert marks_of(messages) == []
    assert marks_of(sent(provider, upstream, request("ok", system="Be short.", collected=True))) == []


@pytest.mark.parametrize(
    "words", ["tools.3.cache_control: Extra inputs are not permitted", "Unknown parameter: 'cache_control'"]
)
def test_cache_control_is_omitted_after_model_refuses_it(
    provider: AnthropicProvider, upstream: Upstream, words: str
) -> None:
    def answer(exchange: Exchange) -> None:
        if marks_of(exchange.body):
            exchange.json(400, {"type": "error", "error": {"type": "invalid_request_error", "message": words}})
        else:
            ANSWERS["ok"](exchange)

    upstream.answers["play"] = answer
    for _ in range(2):
        assert ask(provider, request("play", system="Be kind."))[0] == TEXT
    assert [bool(marks_of(received.body)) for received in upstream.requests] == [True, False, False]
    assert upstream.requests[-1].body["system"] == "Be kind."
    assert marks_of(sent(provider, upstream, request("ok"))) == ["Hello?"]


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}


def test_supported_sampling_fields_are_sent(provider: AnthropicProvider, upstream: Upstream) -> None:
    asked_format = {"type": "json_schema", "json_schema": {"name": "number", "schema": MappingProxyType(SCHEMA)}}
    sampling = Sampling(
        temperature=1.5,
        top_p=0.5,
        frequency_penalty=0.5,
        presence_penalty=-1.0,
        seed=7,
        stop=("a", "b"),
        max_tokens=9,
        response_format=asked_format,
        extra={"logit_bias": {}, "reasoning_effort": "minimal", "verbosity": "low"},
    )
    body = sent(provider, upstream, request("ok", sampling=sampling))
    del body["messages"], body["stream"], body["model"]
    assert body == {
        "max_tokens": 9,
        "temperature": 1.0,
        "stop_sequences": ["a", "b"],
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    }


def test_top_p_is_omitted_when_temperature_is_set(provider: AnthropicProvider, upstream: Upstream) -> None:
    body = sent(provider, upstream, request("ok", sampling=Sampling(top_p=0.5)))
    assert (body["top_p"], "temperature" in body) == (0.5, False)
    body = sent(provider, upstream, request("ok", sampling=Sampling(temperature=0.0, top_p=0.5)))
    assert (body["temperature"], "top_p" in body) == (0.0, False)


REQUIRED = ToolChoiceMode.REQUIRED


@pytest.mark.parametrize(
    ("choice", "parallel", "wire"),
    [
        (ToolChoice(), None, None),
        (ToolChoice(), True, None),
        (ToolChoice(), False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice(ToolChoiceMode.NONE), False, {"type": "none"}),
        (ToolChoice(REQUIRED), None, {"type": "any"}),
        (ToolChoice(REQUIRED), False, {"type": "any", "disable_parallel_tool_use": True}),
        (ToolChoice(REQUIRED, "look"), None, {"type": "tool", "name": "look"}),
    ],
)
def test_functions_and_tool_choice_are_sent(
    provider: AnthropicProvider, upstream: Upstream, choice: ToolChoice, parallel: bool | None, wire: Any
) -> None:
    functions = (Function("look", "Looks.", SCHEMA, strict=True), Function("wait"))
    sampling = Sampling(parallel_tool_calls=parallel)
    body = sent(provider, upstream, request("ok", functions=functions, tool_choice=choice, sampling=sampling))
    assert body["tools"] == [
        {"name": "look", "description": "Looks.", "input_schema": SCHEMA, "strict": True},
        {"name": "wait", "input_schema": {"type": "object", "properties": {}}, **KEPT},
    ]
    assert body.get("tool_choice") == wire


# what goes wrong


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (Sampling(extra={"logit_bias": {"1": 2}}), "logit_bias"),
        (Sampling(response_format={"type": "json_schema", "json_schema": {"name": "n"}}), "response_format"),
    ],
)
def test_unsupported_field_is_refused_by_name(
    provider: AnthropicProvider, upstream: Upstream, sampling: Sampling, param: str
) -> None:
    error = fail(provider, request("ok", sampling=sampling))[1]
    assert (error.code, error.param) == ("provider_rejected_request", param)
    assert upstream.requests == []


@pytest.mark.parametrize("url", ["https://example.com/cat.png", "data:image/tiff;base64,AAAA", "data:image/png,raw"])
def test_image_of_unsupported_type_is_refused(provider: AnthropicProvider, url: str) -> None:
    error = fail(provider, request("ok", Message(Role.USER, (Image(url),))))[1]
    assert error.code == "provider_rejected_request"


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("status-400", "provider_rejected_request", "refused with 400"),
        ("status-401", "provider_authentication_failed", "apiKey"),
        ("status-403", "provider_authentication_failed", "apiKey"),
        ("status-404", "provider_rejected_request", "refused with 404"),
        ("status-409", "provider_error", "refused with 409"),
        ("status-429", "rate_limit_exceeded", "refused with 429"),
        ("status-500", "provider_error", "refused with 500"),
        ("status-529", "provider_error", "refused with 529"),
        ("error-overloaded_error", "provider_error", "the GPU is on fire"),
        ("error-api_error", "provider_error", "the GPU is on fire"),
        ("error-rate_limit_error", "rate_limit_exceeded", "the GPU is on fire"),
        ("error-invalid_request_error", "provider_rejected_request", "the GPU is on fire"),
        ("error-authentication_error", "provider_authentication_failed", "apiKey"),
        ("garbage-events", "provider_error", "not a message"),
        ("drop-before", "provider_error", "closed the connection"),
    ],
)
def test_error_or_invalid_response_has_its_code(provider: AnthropicProvider, model: str, code: str, said: str) -> None:
    check_refused(provider, model, code, said)


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("drop-after", WORDS[0], "closed the connection"),
        ("no-end", TEXT, "stopped before its end"),
        ("error-midway", WORDS[0], "the GPU is on fire"),
    ],
)
def test_interrupted_answer_is_error_after_its_text(
    provider: AnthropicProvider, model: str, text: str, said: str
) -> None:
    check_broken_off(provider, model, text, said)


@pytest.mark.parametrize(("model", "text"), [("hang", ""), ("hang-midway", WORDS[0]), ("pings-only", "")])
def test_silence_is_timeout_despite_pings(upstream: Upstream, model: str, text: str) -> None:
    provider = open_provider(upstream.url, timeoutSeconds=0.2)
    came, error = fail(provider, model)
    assert (came, error.code) == (text, "provider_timeout")
    until(upstream.aborted.is_set)
    provider.close()


def test_rate_limit_has_retry_after(provider: AnthropicProvider) -> None:
    error: GatewayError = fail(provider, "status-429")[1]
    assert error.headers == {"Retry-After": RETRY_AFTER}


def test_prefill_is_sent_without_trailing_whitespace(provider: AnthropicProvider, upstream: Upstream) -> None:
    body = sent(
        provider, upstream, request("ok", text_message(Role.USER, "hi"), text_message(Role.ASSISTANT, "Well \n"))
    )
    assert body["messages"][-1]["content"][-1]["text"] == "Well"


def test_tool_schema_alternatives_are_merged_and_non_object_tool_is_omitted(
    provider: AnthropicProvider, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    city = {"type": "object", "properties": {"city": {"type": "string"}}}
    good, bad = (
        Function("good", parameters={"anyOf": [city, {"type": "object"}]}),
        Function("bad", parameters={"anyOf": [{"type": "string"}]}),
    )
    body = sent(
        provider, upstream, request("ok", functions=(good, bad, Function("bare", parameters={"properties": None})))
    )
    assert [tool["name"] for tool in body["tools"]] == ["good", "bare"]
    assert body["tools"][0]["input_schema"]["properties"] == city["properties"]
    sent(provider, upstream, request("ok", functions=(good, bad)))
    assert caplog.text.count("the tool bad is left out") == 1


def test_callers_only_function_without_object_schema_is_refused(
    provider: AnthropicProvider, upstream: Upstream
) -> None:
    bad = Function("bad", parameters={"anyOf": [{"type": "string"}]}, from_caller=True)
    _, error = fail(provider, request("ok", functions=(Function("own"), bad)))
    assert (error.code, error.param) == ("provider_rejected_request", "tools")
    assert upstream.requests == []


REFUSED_HINTS = [
    ({"extra": {"reasoning_effort": "low"}}, "output_config", "output_config: Extra inputs are not permitted"),
    ({"extra": {"reasoning_effort": "low"}}, "effort", "output_config.effort: this model does not support effort"),
    ({"parallel_tool_calls": False}, "disable_parallel", "tool_choice.auto.disable_parallel_tool_use: unknown field"),
    ({}, "strict", "tools.0.custom.strict: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("sampling", "name", "words"), REFUSED_HINTS)
def test_refused_optional_field_is_omitted_and_remembered(
    provider: AnthropicProvider, upstream: Upstream, sampling: dict[str, Any], name: str, words: str
) -> None:
    def answer(exchange: Exchange) -> None:
        is_sent = name in str(exchange.body)
        exchange.json(400, telling_error(words)) if is_sent else ANSWERS["ok"](exchange)

    upstream.answers["play"] = answer
    function = Function("f", strict=True if name == "strict" else None)
    asked = request("play", sampling=Sampling(**sampling), functions=(function,))
    for _ in range(2):
        assert ask(provider, asked)[0] == TEXT
    assert [name in str(received.body) for received in upstream.requests] == [True, False, False]


def test_refused_value_is_left_out_of_its_request_only(provider: AnthropicProvider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        is_sent = exchange.body.get("output_config") == {"effort": "xhigh"}
        words = "output_config.effort: Input should be 'low', 'medium' or 'high'"
        exchange.json(400, telling_error(words)) if is_sent else ANSWERS["ok"](exchange)

    upstream.answers["play"] = answer
    for effort in ("xhigh", "low"):
        assert ask(provider, request("play", sampling=Sampling(extra={"reasoning_effort": effort})))[0] == TEXT
    sent = [received.body.get("output_config") for received in upstream.requests]
    assert sent == [{"effort": "xhigh"}, None, {"effort": "low"}]


def test_format_of_answer_is_not_omitted(provider: AnthropicProvider, upstream: Upstream) -> None:
    words = "output_config.format: Extra inputs are not permitted"
    upstream.answers["play"] = lambda exchange: exchange.json(400, telling_error(words))
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    sampling = Sampling(response_format=wanted, extra={"reasoning_effort": "low"})
    assert words in fail(provider, request("play", sampling=sampling))[1].message
    assert len(upstream.requests) == 1


def test_format_that_is_checked_becomes_an_instruction(provider: AnthropicProvider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        words = "output_config.format.schema: For 'string' type, property 'minLength' is not supported"
        is_sent = "output_config" in exchange.body
        exchange.json(400, telling_error(words)) if is_sent else ANSWERS["ok"](exchange)

    upstream.answers["play"] = answer
    schema = {"type": "string", "minLength": 1}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    for _ in range(2):
        asked = request("play", system="Be kind.", sampling=Sampling(response_format=wanted))
        assert ask(provider, asked)[0] == TEXT
    sent = ["output_config" in received.body for received in upstream.requests]
    assert sent == [True, False, True, False]  # another schema may be accepted
    assert all(part in str(upstream.requests[1].body["system"]) for part in ("Be kind.", '"minLength":1'))


def test_overlong_id_is_shortened_for_call_and_result(provider: AnthropicProvider, upstream: Upstream) -> None:
    long = "x" * 100
    call = Message(Role.ASSISTANT, tool_calls=(ToolCall(long, "ls", "{}"),))
    result = Message(Role.TOOL, (Text("nothing"),), tool_call_id=long)
    _, shown, answered = sent(provider, upstream, request("ok", text_message(Role.USER, "hi"), call, result))[
        "messages"
    ]
    assert shown["content"][0]["id"] == answered["content"][0]["tool_use_id"]
    assert len(shown["content"][0]["id"]) <= 64
