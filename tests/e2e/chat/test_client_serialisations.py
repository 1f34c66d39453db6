"""Request bodies as the SDKs of several languages serialise them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageToolCall
from openai.types.chat.chat_completion_message_tool_call import Function
from support.chat import PATH, text_of

CALLED = ChatCompletionMessage(
    role="assistant",
    tool_calls=[
        ChatCompletionMessageToolCall(id="c", type="function", function=Function(name="weather", arguments="{}"))
    ],
)
RESULT = {"role": "tool", "tool_call_id": "c", "content": "sunny"}
UNSET: tuple[str, ...] = (
    "temperature",
    "top_p",
    "n",
    "stream",
    "stream_options",
    "stop",
    "max_tokens",
    "max_completion_tokens",
)
UNSET += ("presence_penalty", "frequency_penalty", "logit_bias", "user", "response_format", "seed", "tools")
UNSET += ("tool_choice", "parallel_tool_calls", "store", "metadata", "reasoning_effort", "service_tier", "functions")
MESSAGE = {"role": "user", "content": "hi", "name": None, "tool_calls": None, "tool_call_id": None}
TOOL = {"type": "function", "function": {"name": "weather", "description": None, "parameters": None, "strict": None}}
BODIES: dict[str, Any] = {
    "python-dump": {"messages": [{"role": "user", "content": "x"}, CALLED.model_dump(), RESULT]},
    "node": {
        "model": "openclaw",
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}, "strict": False}}],
    },
    "java-nulls": {"model": "openclaw", "messages": [MESSAGE], **dict.fromkeys(UNSET)},
    "java-tool-nulls": {"messages": [MESSAGE], "tools": [TOOL], "tool_choice": None},
    "go-zero-values": {
        "model": "",
        "messages": [{"role": "user", "content": "hi", "name": ""}],
        "max_tokens": 0,
        "temperature": 0,
        "top_p": 1,
        "stop": [],
        "user": "",
        "tools": [],
        "stream": False,
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_body_of_client_is_answered(client: httpx.Client, body: dict[str, Any]) -> None:
    assert text_of(client.post(PATH, json=body))
