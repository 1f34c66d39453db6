"""What the published schema of Open Responses requires, by our own checks: its cases, against a live gateway.

The first seven are those of its releases, the others those that its repository has since. Its cases for a file search
and a web search are optional, and not met.

https://www.openresponses.org
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support.responses import calls_of, events_of, function, respond, response_of, text_of

#: The members that the schema requires of a response, of each kind of item, and of each kind of event.
RESPONSE = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"),
    *("instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"),
    *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "user", "usage"),
    *("max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier"),
    "prompt_cache_key",
}
NUMBERS = ("top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "created_at")
ITEMS = {
    "message": {"id", "status", "role", "content"},
    "function_call": {"id", "call_id", "name", "arguments", "status"},
}
EVENTS = {
    "response.created": {"response"},
    "response.in_progress": {"response"},
    "response.completed": {"response"},
    "response.output_item.added": {"output_index", "item"},
    "response.output_item.done": {"output_index", "item"},
    "response.content_part.added": {"item_id", "output_index", "content_index", "part"},
    "response.content_part.done": {"item_id", "output_index", "content_index", "part"},
    "response.output_text.delta": {"item_id", "output_index", "content_index", "delta"},
    "response.output_text.done": {"item_id", "output_index", "content_index", "text"},
    "response.function_call_arguments.delta": {"item_id", "output_index", "delta"},
    "response.function_call_arguments.done": {"item_id", "output_index", "arguments"},
}
TEXT_EVENTS = set(EVENTS) - {name for name in EVENTS if "arguments" in name}
CALL_EVENTS = {name for name in EVENTS if "content_part" not in name and "text" not in name}
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAA"
    "fFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def message(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


CASES: dict[str, dict[str, Any]] = {
    "basic-response": {"input": [message("user", "Say hello in three words.")]},
    "streaming-response": {"input": [message("user", "Count from 1 to 5.")], "stream": True},
    "system-prompt": {"input": [message("system", "You are a pirate."), message("user", "Say hello.")]},
    "tool-calling": {"input": [message("user", "What is the weather like?")], "tools": [function("get_weather")]},
    "tool-calling-streaming": {
        "input": [message("user", "What is the weather like?")],
        "tools": [function("get_weather")],
        "stream": True,
    },
    "image-input": {
        "input": [
            message("user", [{"type": "input_text", "text": "See?"}, {"type": "input_image", "image_url": PICTURE}])
        ]
    },
    "multi-turn": {
        "input": [
            message("user", "My name is Alice."),
            message("assistant", "Hello Alice!"),
            message("user", "What is my name?"),
        ]
    },
    "file-input": {
        "input": [
            message(
                "user",
                [
                    {"type": "input_text", "text": "What is its title?"},
                    {"type": "input_file", "filename": "title.txt", "file_data": "data:text/plain;base64,QSB0aXRsZQ=="},
                ],
            )
        ]
    },
}


def check_response(response: dict[str, Any]) -> None:
    """Check what the schema requires of a response."""
    assert response.keys() >= RESPONSE
    assert all(isinstance(response[name], int | float) for name in NUMBERS)
    assert response["reasoning"].keys() == {"effort", "summary"}
    assert response["text"]["format"] == {"type": "text"}
    assert isinstance(response["model"], str)
    usage = response["usage"]
    assert isinstance(usage["input_tokens_details"]["cached_tokens"], int)
    assert isinstance(usage["output_tokens_details"]["reasoning_tokens"], int)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    for item in response["output"]:
        assert item.keys() == ITEMS[item["type"]] | {"type"}
    for tool in response["tools"]:
        assert tool.keys() == {"type", "name", "description", "parameters", "strict"}


def check_events(events: list[dict[str, Any]], expected: set[str]) -> None:
    """Check the kinds of events, and what the schema requires of each."""
    assert {event["type"] for event in events} == expected
    for event in events:
        assert event.keys() >= EVENTS[event["type"]] | {"type", "sequence_number"}


@pytest.mark.parametrize("case", CASES)
def test_case_is_met(client: httpx.Client, case: str) -> None:
    tools = "tools" in CASES[case]
    given = dict(CASES[case])
    answer = respond(
        client, given.pop("input"), {"x-openclaw-model": f"scripted/{'tools' if tools else 'echo'}"}, **given
    )
    response = response_of(answer)
    check_response(response)
    assert response["status"] == "completed"
    if tools:
        assert [call["name"] for call in calls_of(response)] == ["get_weather"]
    else:
        assert text_of(response)
    if given.get("stream"):
        check_events(events_of(answer), CALL_EVENTS if tools else TEXT_EVENTS)


def test_call_is_answered_by_its_output(client: httpx.Client) -> None:
    headers = {"x-openclaw-model": "scripted/tools"}
    fields: dict[str, Any] = {"tools": [function("get_weather")]}
    asked = response_of(
        respond(client, "How warm is it?", headers, tool_choice={"type": "function", "name": "get_weather"}, **fields)
    )
    [call] = calls_of(asked)
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "18 degrees"}
    answered = response_of(respond(client, [message("user", "How warm is it?"), call, output], headers, **fields))
    for response in (asked, answered):
        check_response(response)
    assert (answered["status"], text_of(answered)) == ("completed", "18 degrees")


def test_previous_response_is_continued(client: httpx.Client) -> None:
    first = response_of(respond(client, "The word is papaya."))
    second = response_of(respond(client, "Which word is it?", previous_response_id=first["id"]))
    check_response(second)
    assert (second["status"], second["previous_response_id"]) == ("completed", first["id"])
