"""Encoded histories: a continued conversation is written as if it were encoded from its start."""

from __future__ import annotations

import copy

import orjson
import pytest

from service.core.messages import Image, Message, ProviderData, Role, Text, ToolCall, text_message
from service.models.openai.encoded_history import EncodedHistories, EncodedMessages
from service.models.openai.hosts import RequestStyle, quirks_of, to_short_id
from service.models.openai.request import RequestWriter
from service.models.provider import ModelRequest
from service.models.tool_calls import CallIds

HOSTS = ["api.openai.com", "api.mistral.ai", "generativelanguage.googleapis.com", "localhost"]
STYLE = RequestStyle("max_tokens")


def calling(call_id: str) -> Message:
    data = ProviderData({"reasoning_content": "well"}, {call_id: {"extra_content": {"signature": "s"}}}, "m")
    call = ToolCall(call_id, "look_up", '{"a": 1}')
    return Message(Role.ASSISTANT, (Text("Let me look."),), tool_calls=(call,), provider_data=data)


def result(call_id: str) -> Message:
    return Message(Role.TOOL, (Text("42"),), tool_call_id=call_id)


START = (
    text_message(Role.USER, "one"),
    calling("a call with a long id"),
    result("a call with a long id"),
    Message(Role.ASSISTANT),
    text_message(Role.ASSISTANT, "It is 42."),
)
SHOWN = Message(Role.USER, (Text("What is it?"), Image("data:image/png;base64,AAAA", "high")), name="ann")
#: Requests of one conversation: it grows, is sent again, loses its end, goes on elsewhere, and comes back.
TURNS = (
    START,
    (*START, SHOWN),
    (*START, SHOWN),
    (*START, SHOWN, calling("b"), result("b")),
    (*START, text_message(Role.USER, "else")),
    (*START, text_message(Role.USER, "else"), calling("b"), result("b")),
    START[:2],
    (*START, SHOWN, calling("c"), result("c")),
    START,
)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "style", [STYLE, RequestStyle("max_tokens", shows_data=False, fills_content=True, adds_user=True)]
)
@pytest.mark.parametrize("system", ["", "Be kind."])
def test_continued_conversation_is_written_like_a_new_one(host: str, style: RequestStyle, system: str) -> None:
    writer = RequestWriter(quirks_of(host))
    for messages in TURNS:
        request = ModelRequest("m", system, messages, continued=True)
        fresh = RequestWriter(quirks_of(host)).write(copy.deepcopy(request), style)
        assert orjson.loads(writer.write(request, style)) == orjson.loads(fresh)


def test_model_and_style_have_encodings_of_their_own() -> None:
    writer = RequestWriter(quirks_of("localhost"))
    for model in ("m", "n", "m"):
        for style in (STYLE, RequestStyle("max_tokens", shows_data=False)):
            request = ModelRequest(model, "", START, continued=True)
            assert writer.write(request, style) == RequestWriter(quirks_of("localhost")).write(request, style)


def test_encoded_histories_are_bounded_in_bytes() -> None:
    histories = EncodedHistories(max_bytes=1000)
    conversations = [(text_message(Role.USER, str(number)),) for number in range(4)]
    for messages in conversations:
        histories.put(EncodedMessages("m", STYLE, messages, CallIds(to_short_id), b"x" * 200))
    found = [histories.find("m", STYLE, messages) is not None for messages in conversations]
    assert found == [False, True, True, True]
    histories.put(EncodedMessages("m", STYLE, conversations[0], CallIds(to_short_id), b"x" * 1000))
    assert histories.find("m", STYLE, conversations[0]) is None
