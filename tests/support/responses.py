"""Send requests of the Responses API and read what comes back."""

from __future__ import annotations

from typing import Any

import httpx
import orjson

PATH = "/v1/responses"


def respond(client: httpx.Client, given: Any, headers: Any = None, **fields: Any) -> httpx.Response:
    """Send an input and return the answer, whatever its status."""
    return client.post(PATH, json={"input": given, **fields}, headers=headers)


def response_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the response, of an answer or of the end of its stream, which must be a 200."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] != "text/event-stream":
        whole: dict[str, Any] = answer.json()
        return whole
    last: dict[str, Any] = events_of(answer)[-1]["response"]
    return last


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream; the client has checked their order."""
    return [orjson.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


def text_of(response: dict[str, Any]) -> str:
    """Return the text of a response's messages."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for message in messages for part in message["content"])


def calls_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the calls of the caller's functions in a response."""
    return [item for item in response["output"] if item["type"] == "function_call"]


def function(name: str, **fields: Any) -> dict[str, Any]:
    """Return a tool, a function without parameters."""
    return {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}, **fields}
