"""Answers of each scripted model."""

from __future__ import annotations

import pytest
from support.provider_calls import ask, fail, receive, request

from service.core import concurrency
from service.core.errors import KINDS
from service.core.messages import (
    Function,
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
from service.models.provider import ModelEnded
from service.models.scripted import ScriptedProvider
from service.models.scripted_errors import is_scripted_error

FUNCTIONS = (Function("first"), Function("second"))
RESULT = Message(Role.TOOL, (Text("it rains"),), tool_call_id="call_1")
REQUIRED = ToolChoice(ToolChoiceMode.REQUIRED)


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.mark.parametrize("said", ["Good  morning,\n world! ", " one", "\U0001f44b", "a\n\nb"])
def test_echo_repeats_last_user_message_exactly(provider: ScriptedProvider, said: str) -> None:
    messages = (
        text_message(Role.USER, "before"),
        text_message(Role.USER, said),
        text_message(Role.ASSISTANT, "after"),
    )
    assert ask(provider, request("echo", *messages))[0] == said


@pytest.mark.parametrize(
    ("kind", "said", "answer"),
    [
        ("json_object", '{"a": 1}', '{"a": 1}'),
        ("json_object", "[1]", '{"text":"[1]"}'),
        ("json_schema", "[1]", "[1]"),
        ("json_schema", "a b", '{"text":"a b"}'),
        ("text", "a b", "a b"),
    ],
)
def test_echo_answers_in_json(provider: ScriptedProvider, kind: str, said: str, answer: str) -> None:
    sampling = Sampling(response_format={"type": kind})
    assert ask(provider, request("echo", text_message(Role.USER, said), sampling=sampling))[0] == answer


def test_echo_repeats_last_tool_message(provider: ScriptedProvider) -> None:
    assert ask(provider, request("echo", text_message(Role.USER, "weather?"), RESULT))[0] == "it rains"


def test_echo_answers_empty_message(provider: ScriptedProvider) -> None:
    assert ask(provider, request("echo", text_message(Role.USER, " \n")))[0] == "You said nothing."


def test_answer_is_streamed_by_word_and_usage_counts_words(provider: ScriptedProvider) -> None:
    asked = request("echo", text_message(Role.USER, "one two three"), system="be kind")
    texts: list[str] = []
    end = receive(provider, asked, texts)
    assert texts == ["one", " two", " three"]
    assert end == ModelEnded(StopReason.STOP, (), Usage(5, 3))


def test_count_answers_with_numbers(provider: ScriptedProvider) -> None:
    assert ask(provider, "count-3")[0] == "1 2 3 "
    assert ask(provider, "count-0")[0] == ""


@pytest.mark.parametrize(("limit", "text", "reason"), [(2, "1 2 ", StopReason.LENGTH), (3, "1 2 3 ", StopReason.STOP)])
def test_max_tokens_limits_words(provider: ScriptedProvider, limit: int, text: str, reason: StopReason) -> None:
    said, end = ask(provider, request("count-3", sampling=Sampling(max_tokens=limit)))
    assert (said, end.stop_reason) == (text, reason)


def test_slow_takes_tenth_of_second_per_word() -> None:
    slept: list[float] = []
    text, end = ask(ScriptedProvider(slept.append), "slow")
    assert slept == [0.1] * len(text.split())
    assert end.usage.output_tokens == len(slept) > 10


def test_stuck_streams_one_word_and_then_waits(provider: ScriptedProvider) -> None:
    texts: list[str] = []
    with pytest.raises(concurrency.Deadline), concurrency.deadline(0.05):
        receive(provider, "stuck", texts)
    assert texts == ["Well"]


def test_silent_streams_nothing(provider: ScriptedProvider) -> None:
    texts: list[str] = []
    with pytest.raises(concurrency.Deadline), concurrency.deadline(0.05):
        receive(provider, "silent", texts)
    assert texts == []


@pytest.mark.parametrize("code", KINDS)
def test_fail_raises_any_code_that_models_can_have(provider: ScriptedProvider, code: str) -> None:
    text, error = fail(provider, f"fail-{code}")
    assert (text, error.code) == ("", code if is_scripted_error(code) else "model_not_found")


def test_fail_midway_raises_after_text(provider: ScriptedProvider) -> None:
    text, error = fail(provider, request("fail-midway", functions=FUNCTIONS, tool_choice=REQUIRED))
    assert (text, error.code) == ("This will not", "provider_error")


@pytest.mark.parametrize("model", ["", "gpt-5", "count-", "count-x", "count--1", "count-1000000", "count-٣"])
def test_unknown_scripted_model_is_rejected_by_name(provider: ScriptedProvider, model: str) -> None:
    error = fail(provider, model)[1]
    assert error.code == "provider_rejected_request"
    assert model in error.message


@pytest.mark.parametrize("model", ["echo", "tools", "count-3", "slow"])
@pytest.mark.parametrize(
    ("choice", "name"),
    [(REQUIRED, "first"), (ToolChoice(ToolChoiceMode.REQUIRED, "second"), "second")],
)
def test_required_function_is_called(provider: ScriptedProvider, model: str, choice: ToolChoice, name: str) -> None:
    text, end = ask(provider, request(model, functions=FUNCTIONS, tool_choice=choice))
    assert (text, end.stop_reason) == ("", StopReason.TOOL_CALLS)
    assert end.tool_calls == (ToolCall("call_1", name, "{}"),)


def test_tools_calls_first_function_and_then_answers_with_result(provider: ScriptedProvider) -> None:
    question = text_message(Role.USER, "weather?")
    asked = request("tools", question, functions=FUNCTIONS)
    assert ask(provider, asked)[1].tool_calls == (ToolCall("call_1", "first", "{}"),)
    call = Message(Role.ASSISTANT, tool_calls=(ToolCall("call_1", "first", "{}"),))
    assert ask(provider, request("tools", question, call, RESULT, functions=FUNCTIONS))[0] == "it rains"


@pytest.mark.parametrize("fields", [{}, {"functions": FUNCTIONS, "tool_choice": ToolChoice(ToolChoiceMode.NONE)}])
def test_tools_without_callable_function_is_echo(provider: ScriptedProvider, fields: dict[str, object]) -> None:
    assert ask(provider, request("tools", **fields))[0] == "Hello?"


def test_other_scripted_models_call_no_functions(provider: ScriptedProvider) -> None:
    assert ask(provider, request("echo", functions=FUNCTIONS))[1].tool_calls == ()


def test_second_close_does_nothing(provider: ScriptedProvider) -> None:
    provider.close()
    provider.close()
