"""Encoded turns of Anthropic's dialect: a continued conversation is written as if it were encoded from its start."""

from __future__ import annotations

import copy
from itertools import accumulate
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.messages import Function, Image, Message, ProviderData, Role, Text, ToolCall, text_message
from service.models.anthropic.request import RequestStyle, RequestWriter
from service.models.provider import ModelRequest

USER, ANSWER, BLANK = (
    text_message(role, text)
    for role, text in zip((Role.USER, Role.ASSISTANT, Role.ASSISTANT), ("one", "uno ", " "), strict=True)
)
CALL = ToolCall("c", "look up", '{"a": 1}')
THINKING = ProviderData(
    {"content": [{"type": "thinking", "thinking": "well"}, {"type": "tool_use"}]}, {"c": {"place": 0}}
)
CALLING = Message(Role.ASSISTANT, (Text("Let me look."),), tool_calls=(CALL,))
THOUGHT = Message(Role.ASSISTANT, tool_calls=(CALL,), provider_data=THINKING)
RESULT = Message(Role.TOOL, (Text("42"),), tool_call_id="c")
SHOWN = Message(Role.USER, (Text("What is it?"), Image("data:image/png;base64,AAAA", "high")))

#: What a conversation adds at a time; a conversation may also lose some of its last messages.
STEPS = st.lists(st.sampled_from([USER, ANSWER, BLANK, CALLING, THOUGHT, RESULT, SHOWN]), min_size=1, max_size=5)


def written(writer: RequestWriter, request: ModelRequest, style: RequestStyle) -> Any:
    return orjson.loads(b"".join(writer.write(request, style)))


@given(st.lists(st.tuples(st.integers(0, 6), STEPS), max_size=8), st.sampled_from([USER, ANSWER]))
def test_continued_conversation_is_written_like_a_new_one(
    turns: list[tuple[int, list[Message]]], first: Message
) -> None:
    writer = RequestWriter()
    messages: tuple[Message, ...] = (first,)
    for lost, added in turns:
        messages = (*messages[: max(1, len(messages) - lost)], *added)
        request = ModelRequest("m", "Be kind.", messages, continued=True)
        for style in (RequestStyle(), RequestStyle(marks_cache=False)):
            fresh = copy.deepcopy(ModelRequest("m", "Be kind.", messages))
            assert written(writer, request, style) == written(RequestWriter(), fresh, style)


def test_closed_turns_are_encoded_once() -> None:
    writer, chat = RequestWriter(), (USER, ANSWER) * 20
    sizes = []
    for messages in accumulate((chat[at : at + 2] for at in range(0, len(chat), 2)), initial=()):
        request = ModelRequest("m", "", (*messages, USER), continued=True)
        sizes.append(len(writer.write(request, RequestStyle())[-1]))
    assert len(set(sizes[4:])) == 1


@pytest.mark.parametrize("functions", [(), (Function("f"),)])
def test_models_have_encodings_of_their_own(functions: tuple[Function, ...]) -> None:
    writer, messages = RequestWriter(), (USER, CALLING, RESULT, ANSWER) * 5
    for model in ("m", "n", "m"):
        request = ModelRequest(model, "", (*messages, USER), functions, continued=True)
        assert written(writer, request, RequestStyle()) == written(RequestWriter(), request, RequestStyle())
