"""Encoded histories: a continued conversation is written as if it were encoded from its start."""

from __future__ import annotations

import copy

import orjson
import pytest

from service.core.messages import Image, Message, ProviderData, Role, Text, ToolCall, text_message
from service.models.openai.hosts import RequestStyle, quirks_of
from service.models.openai.request import RequestWriter
from service.models.provider import ModelRequest

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
    "style", [STYLE, RequestStyle("max_tokens", sends_provider_data=False, fills_content=True, adds_user=True)]
)
@pytest.mark.parametrize("system", ["", "Be kind."])
def test_continued_conversation_is_written_like_a_new_one(host: str, style: RequestStyle, system: str) -> None:
    writer = RequestWriter(quirks_of(host))
    for messages in TURNS:
        request = ModelRequest("m", system, messages, continued=True)
        fresh = RequestWriter(quirks_of(host)).write(copy.deepcopy(request), style)
        assert orjson.loads(b"".join(writer.write(request, style))) == orjson.loads(b"".join(fresh))


def test_model_and_style_have_encodings_of_their_own() -> None:
    writer = RequestWriter(quirks_of("localhost"))
    for model in ("m", "n", "m"):
        for style in (STYLE, RequestStyle("max_tokens", sends_provider_data=False)):
            request = ModelRequest(model, "", START, continued=True)
            assert writer.write(request, style) == RequestWriter(quirks_of("localhost")).write(request, style)


def test_new_request_of_one_conversation_is_written_like_a_continued_one() -> None:
    for messages in (START, START[:1], (START[3],)):
        written = [
            orjson.loads(b"".join(RequestWriter(quirks_of("localhost")).write(request, STYLE)))
            for request in (ModelRequest("m", "s", messages), ModelRequest("m", "s", messages, continued=True))
        ]
        assert written[0] == written[1]
