"""Merging a request's messages into the session history, in the form that providers accept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.agent.conversation import IncomingMessage, SettledHistories, select_new, settle_tool_calls
from service.core.errors import GatewayError
from service.core.messages import NO_USER_MESSAGE, Message, Role, Text, ToolCall, text_message
from service.models.provider import ModelRequest

USER, ANSWER = text_message(Role.USER, "one"), text_message(Role.ASSISTANT, "uno")
NEXT = text_message(Role.USER, "two")
CALLING = Message(Role.ASSISTANT, tool_calls=(ToolCall("c", "f", "{}"),))


def result(text: str, call_id: str = "c") -> Message:
    return Message(Role.TOOL, (Text(text),), tool_call_id=call_id)


def incoming(*messages: Message) -> list[IncomingMessage]:
    return [IncomingMessage(f"messages[{index}]", message) for index, message in enumerate(messages)]


def new_of(history: tuple[Message, ...], *sent: Message) -> tuple[Message, ...]:
    return tuple(item.message for item in select_new(history, incoming(*sent)))


def test_all_messages_are_new_without_history() -> None:
    assert new_of((), USER, ANSWER, NEXT) == (USER, ANSWER, NEXT)


@pytest.mark.parametrize("sent", [(NEXT,), (USER, ANSWER, NEXT), (ANSWER, NEXT)])
def test_messages_after_last_answer_are_new_with_history(sent: tuple[Message, ...]) -> None:
    assert new_of((USER, ANSWER), *sent) == (NEXT,)


def test_result_for_call_of_history_is_accepted() -> None:
    assert new_of((USER, CALLING), result("42")) == (result("42"),)


def test_result_without_call_is_refused_with_its_path() -> None:
    with pytest.raises(GatewayError) as caught:
        select_new((), incoming(USER, result("42")))
    assert caught.value.param == "messages[1]"


def test_repeated_result_is_refused() -> None:
    with pytest.raises(GatewayError, match="repeats the result of a call") as caught:
        select_new((USER, CALLING, result("42"), ANSWER), incoming(result("42")))
    assert caught.value.param == "messages[0]"


@pytest.mark.parametrize("message", [text_message(Role.USER, " \n"), ANSWER, Message(Role.USER)])
def test_request_without_content_to_answer_is_refused(message: Message) -> None:
    with pytest.raises(GatewayError) as caught:
        select_new((), incoming(message))
    assert caught.value.param == "messages"


def test_results_follow_their_calls() -> None:
    twice = Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "f", ""), ToolCall("b", "f", "")))
    settled = settle_tool_calls((USER, twice, result("B", "b"), result("A", "a"), NEXT))
    assert settled == (USER, twice, result("A", "a"), result("B", "b"), NEXT)


def test_missing_result_is_added_and_second_result_is_dropped() -> None:
    assert settle_tool_calls((CALLING, NEXT)) == (CALLING, result("(no result)"), NEXT)
    assert settle_tool_calls((CALLING, result("1"), result("2"))) == (CALLING, result("1"))


def test_two_calls_with_same_id_keep_both_results() -> None:
    twice = Message(Role.ASSISTANT, tool_calls=(ToolCall("c", "f", ""), ToolCall("c", "g", "")))
    first, second = (replace(result(text), tool_call_id="c") for text in "12")
    assert settle_tool_calls((USER, twice, first, second)) == (USER, twice, first, second)
    assert settle_tool_calls((USER, twice, first)) == (
        USER,
        twice,
        first,
        replace(result("(no result)"), tool_call_id="c"),
    )


def test_reused_id_belongs_to_its_own_call() -> None:
    messages = (CALLING, result("1"), NEXT, CALLING, result("2"))
    assert settle_tool_calls(messages) == messages


STEPS = st.sampled_from(
    [
        NEXT,
        ANSWER,
        CALLING,
        replace(CALLING, tool_calls=(ToolCall("c", "f", ""), ToolCall("c", "g", ""), ToolCall("d", "g", ""))),
        result("1"),
        result("2", "d"),
    ]
)


@given(st.lists(st.lists(STEPS, min_size=1, max_size=4), max_size=6))
def test_continued_conversation_is_settled_like_a_new_one(turns: list[list[Message]]) -> None:
    histories = SettledHistories()
    messages: tuple[Message, ...] = (USER,)
    for turn in turns:
        messages += tuple(turn)
        request = ModelRequest("m", "", messages, continued=True)
        assert histories.settle(request).messages == settle_tool_calls(messages)
        assert histories.settle(request).messages == settle_tool_calls(messages)


def test_instructions_alone_need_no_user_message() -> None:
    assert select_new((), (), has_instructions=True) == ()
    assert select_new((), incoming(ANSWER), has_instructions=True) == tuple(incoming(ANSWER))


def test_instructions_alone_continue_a_session_with_a_note() -> None:
    [item] = select_new((USER, ANSWER), (), has_instructions=True)
    assert item.message == text_message(Role.USER, NO_USER_MESSAGE)


@pytest.mark.parametrize("history", [(), (USER, ANSWER)])
def test_blank_user_message_is_refused_beside_instructions(history: tuple[Message, ...]) -> None:
    with pytest.raises(GatewayError, match="no user message"):
        select_new(history, incoming(text_message(Role.USER, " \n")), has_instructions=True)


def test_known_messages_are_refused_beside_instructions() -> None:
    with pytest.raises(GatewayError, match="no user message"):
        select_new((USER, ANSWER), incoming(USER, ANSWER), has_instructions=True)
