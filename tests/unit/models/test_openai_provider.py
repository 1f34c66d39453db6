"""The OpenAI dialect over real sockets: requests, responses and errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest
from support.provider_calls import (
    KEY,
    PICTURE,
    ask,
    check_broken_off,
    check_refused,
    check_streams_and_ends,
    fail,
    open_provider,
    request,
    sent,
)
from support.upstream import Exchange, Upstream
from support.upstream_answers import RETRY_AFTER, TEXT, WORDS, frame

from service.config.models import ProviderConfig
from service.core.messages import (
    Function,
    Image,
    Message,
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
from service.models.errors.context_overflow import Overflow, overflow_of
from service.models.openai.provider import OpenAIProvider
from service.models.provider import ModelEnded
from service.models.tool_calls import wire_arguments, with_distinct_ids

STUB_USAGE = Usage(7, 5, 3)


@pytest.fixture
def provider(upstream: Upstream) -> Iterator[OpenAIProvider]:
    opened = open_provider(upstream.url)
    yield opened
    opened.close()


# what is understood


@pytest.mark.parametrize("model", ["ok", "split", "crlf", "plain-json", "only-done", "odd-finish", "hang-after-done"])
def test_complete_answer_has_text_and_usage(provider: OpenAIProvider, model: str) -> None:
    assert ask(provider, model) == (TEXT, ModelEnded(StopReason.STOP, (), STUB_USAGE))


def test_answer_without_done_is_complete(provider: OpenAIProvider) -> None:
    assert ask(provider, "no-done") == (TEXT, ModelEnded(StopReason.LENGTH))


def ending(finish_reason: str | None = None, *, streamed: bool = True, **told: Any) -> Callable[[Exchange], None]:
    """An answer with this ending and further fields in its last choice."""

    def answer(exchange: Exchange) -> None:
        choice = {"index": 0, "finish_reason": finish_reason, **told}
        if not streamed:
            return exchange.json(200, {"choices": [choice | {"message": {"role": "assistant", "content": TEXT}}]})
        exchange.head()
        exchange.words()
        exchange.send(frame({"choices": [choice | {"delta": {}}]}))
        return exchange.end(None)

    return answer


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        *((told, StopReason.LENGTH) for told in ("length", "model_length", "max_tokens", "MAX_TOKENS")),
        *((told, StopReason.CONTENT_FILTER) for told in ("sensitive", "SAFETY", "safety", "RECITATION", "SPII")),
        *((told, StopReason.CONTENT_FILTER) for told in ("PROHIBITED_CONTENT", "content_filter: BLOCKLIST")),
        *((told, StopReason.STOP) for told in ("stop", "STOP", "eos")),
    ],
)
def test_finish_reasons_of_many_hosts_are_recognised(
    provider: OpenAIProvider, upstream: Upstream, told: str, reason: StopReason
) -> None:
    upstream.answers["ending"] = ending(told)
    assert ask(provider, "ending") == (TEXT, ModelEnded(reason, (), STUB_USAGE))


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("told", "code", "said"),
    [
        *(
            ({"finish_reason": reason}, "provider_error", f"it ended with {reason}")
            for reason in ("error", "network_error", "insufficient_system_resource", "abort", "aborted")
        ),
        ({"finish_reason": "function_call_filter: MALFORMED_FUNCTION_CALL"}, "provider_error", "MALFORMED"),
        ({"finish_reason": "error", "error": {"code": 502, "message": "down"}}, "provider_error", ": down"),
        ({"finish_reason": "stop", "error": {"code": 429, "message": "slow"}}, "rate_limit_exceeded", ": slow"),
        ({"error": {"message": "down"}}, "provider_error", ": down"),
    ],
)
def test_interrupted_choice_is_error(
    provider: OpenAIProvider, upstream: Upstream, told: dict[str, Any], code: str, said: str, streamed: bool
) -> None:
    upstream.answers["ending"] = ending(**told, streamed=streamed)
    error = fail(provider, "ending")[1]
    assert error.code == code
    assert said in error.message


def test_text_is_streamed_while_answer_continues(provider: OpenAIProvider, upstream: Upstream) -> None:
    check_streams_and_ends(provider, upstream)


def test_tool_calls_are_assembled_from_deltas(provider: OpenAIProvider) -> None:
    arguments = '{"city": "Hanoi"}'
    calls = (ToolCall("call-first", "first", arguments), ToolCall("call-second", "second", arguments))
    assert ask(provider, "tools") == ("Let me see.", ModelEnded(StopReason.TOOL_CALLS, calls, STUB_USAGE))


def test_missing_call_ids_are_generated_and_unique(provider: OpenAIProvider) -> None:
    ids: set[str] = set()
    for _ in range(2):
        text, end = ask(provider, "bare-tools")
        assert (text, end.stop_reason) == ("", StopReason.TOOL_CALLS)
        assert [(call.name, call.arguments) for call in end.tool_calls] == [("f0", '{"n":0}'), ("f1", '{"n":1}')]
        ids |= {call.id for call in end.tool_calls}
    assert len(ids) == 4


def test_call_ids_are_distinct_and_can_be_stored() -> None:
    calls = with_distinct_ids(ToolCall("x" * 6_000, name, "{}") for name in ("first", "second"))
    assert [call.name for call in calls] == ["first", "second"]
    assert len({call.id for call in calls}) == 2
    assert max(len(call.id) for call in calls) < 300


# what is sent


def test_minimal_request_has_only_required_fields(provider: OpenAIProvider, upstream: Upstream) -> None:
    assert sent(provider, upstream, request("ok")) == {
        "model": "ok",
        "messages": [{"role": "user", "content": "Hello?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    received = upstream.requests[-1]
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["x-team"] == "blue"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["host"] in upstream.url


def test_whole_conversation_is_sent_as_messages(provider: OpenAIProvider, upstream: Upstream) -> None:
    messages = (
        Message(Role.USER, (Text("What is "), Text("this?"), Image(PICTURE, "low")), name="ann"),
        Message(Role.ASSISTANT, (Text("Let me see."),), tool_calls=(ToolCall("c1", "look", '{"at": 1}'),)),
        Message(Role.TOOL, (Text("a cat"),), tool_call_id="c1"),
        Message(Role.ASSISTANT, (), tool_calls=(ToolCall("c2", "look", "{}"),)),
        Message(Role.TOOL, (), tool_call_id="c2"),
        Message(Role.USER, (Text("And "), Text("now?"))),
    )
    body = sent(provider, upstream, request("ok", *messages, system="Be kind."))
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    assert body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is "},
                {"type": "text", "text": "this?"},
                {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
            ],
            "name": "ann",
        },
        {"role": "assistant", "content": "Let me see.", "tool_calls": [{"id": "c1", **call}]},
        {"role": "tool", "content": "a cat", "tool_call_id": "c1"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "", "tool_call_id": "c2"},
        {"role": "user", "content": "And now?"},
    ]


def test_empty_assistant_message_is_not_sent(provider: OpenAIProvider, upstream: Upstream) -> None:
    silent = (Message(Role.ASSISTANT, ()), Message(Role.ASSISTANT, (Text(""),)))
    messages = (text_message(Role.USER, "Hi."), *silent, text_message(Role.USER, "Well?"))
    shown = sent(provider, upstream, request("ok", *messages))["messages"]
    assert [message["content"] for message in shown] == ["Hi.", "Well?"]


@pytest.mark.parametrize("written", ["", " "])
def test_missing_arguments_are_sent_as_empty_object(provider: OpenAIProvider, upstream: Upstream, written: str) -> None:
    call = ToolCall("c1", "look", written)
    messages = (Message(Role.ASSISTANT, (), tool_calls=(call,)), Message(Role.TOOL, (), tool_call_id="c1"))
    [told] = sent(provider, upstream, request("ok", *messages))["messages"][0]["tool_calls"]
    assert told["function"]["arguments"] == "{}"
    assert wire_arguments(call) == {}


def test_sampling_fields_are_sent_under_api_names(provider: OpenAIProvider, upstream: Upstream) -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        frequency_penalty=1.0,
        presence_penalty=-1.0,
        seed=7,
        stop=("a", "b"),
        max_tokens=9,
        response_format=MappingProxyType({"type": "json_object"}),
        parallel_tool_calls=False,
        extra={"logit_bias": {"50256": -100}, "model": "never this one"},
    )
    body = sent(provider, upstream, request("ok", sampling=sampling))
    del body["messages"], body["stream"], body["stream_options"]
    assert body == {
        "model": "ok",
        "temperature": 0.0,
        "top_p": 0.5,
        "frequency_penalty": 1.0,
        "presence_penalty": -1.0,
        "seed": 7,
        "stop": ["a", "b"],
        "max_tokens": 9,
        "response_format": {"type": "json_object"},
        "logit_bias": {"50256": -100},
    }


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        (ToolChoice(), None),
        (ToolChoice(ToolChoiceMode.NONE), "none"),
        (ToolChoice(ToolChoiceMode.REQUIRED), "required"),
        (ToolChoice(ToolChoiceMode.REQUIRED, "look"), {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_functions_and_tool_choice_are_sent(
    provider: OpenAIProvider, upstream: Upstream, choice: ToolChoice, wire: Any
) -> None:
    functions = (Function("look", "Looks.", {"type": "object"}, strict=True), Function("wait"))
    sampling = Sampling(parallel_tool_calls=False)
    body = sent(provider, upstream, request("ok", functions=functions, tool_choice=choice, sampling=sampling))
    full = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}, "strict": True}
    assert body["tools"] == [
        {"type": "function", "function": full},
        {"type": "function", "function": {"name": "wait"}},
    ]
    assert body.get("tool_choice") == wire
    assert body["parallel_tool_calls"] is False


def test_configuration_sets_address_and_headers(upstream: Upstream) -> None:
    config = ProviderConfig.model_validate(
        {"baseUrl": f"{upstream.url}?version=2", "apiKey": KEY, "headers": {"X-Team": "red"}, "timeoutSeconds": 5}
    )
    provider = OpenAIProvider.from_config(config)
    assert ask(provider, "ok")[0] == TEXT
    received = upstream.requests[-1]
    assert received.path == "/v1/chat/completions?version=2"
    assert (received.headers["authorization"], received.headers["x-team"]) == (f"Bearer {KEY}", "red")
    provider.close()


# what goes wrong


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("status-400", "provider_rejected_request", "refused with 400"),
        ("status-404", "provider_rejected_request", "refused with 404 Check its baseUrl."),
        ("status-413", "provider_rejected_request", "refused with 413"),
        ("status-422", "provider_rejected_request", "refused with 422"),
        ("status-401", "provider_authentication_failed", "Correct its apiKey. It says: refused with 401"),
        ("status-402", "provider_error", "requires payment (HTTP 402). It says: refused with 402"),
        (
            "status-403",
            "provider_authentication_failed",
            "its apiKey and the permissions of that key. It says: refused with 403",
        ),
        ("status-405", "provider_error", "(HTTP 405). Check its baseUrl. It says: refused with 405"),
        ("status-408", "provider_timeout", "refused with 408"),
        ("status-429", "rate_limit_exceeded", "refused with 429"),
        ("status-500", "provider_error", "refused with 500"),
        ("status-503", "provider_error", "refused with 503"),
        ("status-504", "provider_timeout", "refused with 504"),
        ("status-301", "provider_error", "redirects elsewhere (HTTP 301). Correct its baseUrl."),
        ("drop-before", "provider_error", "closed the connection"),
        ("garbage", "provider_error", "not valid HTTP"),
        ("garbage-events", "provider_error", "not a chat completion"),
        ("endless-line", "provider_error", "more than 16384 KiB"),
        ("endless-head", "provider_error", "larger than 64 KiB"),
    ],
)
def test_error_or_invalid_response_has_its_code(provider: OpenAIProvider, model: str, code: str, said: str) -> None:
    check_refused(provider, model, code, said)


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("drop-after", WORDS[0], "closed the connection"),
        ("end-quietly", TEXT, "stopped before its end"),
        ("no-finish", TEXT, "stopped before its end"),
        ("error-event", WORDS[0], "the GPU is on fire"),
    ],
)
def test_interrupted_answer_is_error_after_its_text(provider: OpenAIProvider, model: str, text: str, said: str) -> None:
    check_broken_off(provider, model, text, said)


def test_rate_limit_has_retry_after(provider: OpenAIProvider) -> None:
    assert fail(provider, "status-429")[1].headers == {"Retry-After": RETRY_AFTER}


RAW = {"error": {"message": "too dear", "type": "x"}}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps(RAW)}}}, "too dear"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": "too dear"}}}, "too dear"),
        ({"error": {"message": "flagged", "metadata": {"reasons": ["x"], "raw": None}}}, "flagged"),
        ({"detail": "Not here"}, "Not here"),
        ({"detail": [{"loc": ["body", "messages", 0], "msg": "is missing"}]}, "body.messages.0: is missing"),
        ({"object": "error", "message": {"detail": [{"loc": ["body"], "msg": "no"}, {"msg": "bad"}]}}, "body: no; bad"),
        ({"errors": [{"message": "one"}, {"message": "two"}]}, "one; two"),
        ({"errors": ["only this"]}, "only this"),
        ({"error": "plainly"}, "plainly"),
        ({"error": {"message": f"no {KEY}"}}, "no ***"),
        ({"error": {"message": "Too much.", "code": "context_length_exceeded"}}, "context_length_exceeded: Too much."),
        ("upstream connect\nerror\n", "upstream connect error"),
        (f"the key {KEY} is wrong", "the key *** is wrong"),
        ("<html>Bad</html>", "(HTTP 400)."),
        ("\x00\x01", "(HTTP 400)."),
        ("much " * 300, "(HTTP 400)."),
        ([[[[[[[[[[[["deep"]]]]]]]]]]]], "(HTTP 400)."),
    ],
)
def test_error_message_is_found_in_any_known_field(
    provider: OpenAIProvider, upstream: Upstream, body: Any, said: str
) -> None:
    def answer(exchange: Exchange) -> None:
        if not isinstance(body, str):
            return exchange.json(400, body)
        exchange.head(400, "text/plain")
        exchange.send(body.encode())
        return exchange.last_chunk()

    upstream.answers["refusing"] = answer
    text, error = fail(provider, "refusing")
    assert (text, error.code) == ("", "provider_rejected_request")
    assert error.message.removeprefix("The model provider rejected the request").removeprefix(":").strip() == said


def test_error_message_is_shortened_and_has_no_key(provider: OpenAIProvider) -> None:
    message = fail(provider, "tells-key")[1].message
    assert "the key Bearer *** may not do this" in message
    assert len(message) < 600


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("the request exceeds the available context size", Overflow.TOKENS),
        ("This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.", Overflow.TOKENS),
        ("the GPU is on fire", None),
        ("too many tokens per minute: rate limit", None),
    ],
)
def test_overflow_is_recognised_by_its_words_whatever_the_status(
    provider: OpenAIProvider, upstream: Upstream, status: int, words: str, kind: Overflow | None
) -> None:
    upstream.answers["overflow"] = lambda exchange: exchange.json(status, {"error": {"message": words}})
    assert overflow_of(fail(provider, "overflow")[1]) is kind
