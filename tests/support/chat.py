"""Send chat completions over HTTP and read their responses."""

from __future__ import annotations

from typing import Any

import httpx
import orjson

PATH = "/v1/chat/completions"


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def ask(client: httpx.Client, *messages: Any, headers: Any = None, **fields: Any) -> httpx.Response:
    """Send messages (a string is a user message) and return the response, whatever its status."""
    listed = [user(message) if isinstance(message, str) else message for message in messages]
    return client.post(PATH, json={"messages": listed, **fields}, headers=headers)


def text_of(response: httpx.Response) -> str:
    """Return the text of a JSON response, which must be a 200."""
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, code and param of an error response."""
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the chunks of a stream, without the required `[DONE]`."""
    assert response.status_code == 200, response.text
    data = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [orjson.loads(item) for item in data]


def streamed_text(response: httpx.Response) -> str:
    """Return the text of a stream."""
    deltas = [choice["delta"] for chunk in chunks_of(response) for choice in chunk.get("choices", [])]
    return "".join(delta.get("content") or "" for delta in deltas)
