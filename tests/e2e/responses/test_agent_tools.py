"""The agent's own tools in responses: shown where `include` asks for them, and limited by `max_tool_calls`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai.types.responses import Response
from support.live import LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.responses import calls_of, function, respond, response_of, text_of
from support.scripted_upstream import Play, calls
from support.upstream import Upstream, sent
from support.workspace_tools import with_notes

SHOWN = {"include": ["openclaw.tool_calls"]}
FOUND = "     1\ttea\n     2\tmilk"
READ = ("read", {"path": "notes.txt"})


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway whose agent reads the files of a workspace."""
    directory = tmp_path_factory.mktemp("gateway")
    with_notes(directory / "workspace")
    agents = [{"id": "main", "workspace": str(directory / "workspace")}]
    with live_gateway(directory, stubbed_config(module_upstream.url, "stub/play", agents=agents)) as running:
        yield running


def own_calls(response: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The names, states and results of the agent's calls."""
    shown = [item for item in response["output"] if item["type"] == "mcp_call"]
    return [(item["name"], item["status"], item["output"] or item["error"]) for item in shown]


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"background": True}, {"background": True, "stream": True}])
def test_calls_are_shown_where_asked_for(client: httpx.Client, upstream: Upstream, fields: dict[str, Any]) -> None:
    upstream.answers["play"] = Play(
        calls(READ, ("read", {"path": "nothing"}), text="I look."),
        calls(("weather", {}), text="Tea."),
        calls(text="Ok."),
    )
    tools = [function("weather")]
    given = response_of(respond(client, "go", tools=tools, **SHOWN, **fields))
    path = f"/v1/responses/{given['id']}"
    until(lambda: client.get(path).json()["status"] not in ("queued", "in_progress"))
    stored = response_of(client.get(path))
    assert given == stored or given["status"] == "queued"
    if "background" in fields:
        assert response_of(client.get(path, params={"stream": "true"})) == stored
    assert [item["type"] for item in stored["output"]] == [
        "message",
        "mcp_call",
        "mcp_call",
        "message",
        "function_call",
    ]
    [(_, *found), (_, *missing)] = own_calls(stored)
    assert found == ["completed", FOUND]
    assert (missing[0], "nothing" in missing[1]["content"][0]["text"]) == ("failed", True)
    assert text_of(stored) == "I look.Tea."
    Response.model_validate(stored, strict=True)
    output = {"type": "function_call_output", "call_id": calls_of(stored)[0]["call_id"], "output": "sunny"}
    resent = [{"role": "user", "content": "go"}, *stored["output"], output]
    assert text_of(response_of(respond(client, resent, tools=tools))) == "Ok."
    assert [message["role"] for message in sent(upstream)] == [
        "user",
        *("assistant", "tool", "tool"),
        "assistant",
        "tool",
    ]


def test_repeated_request_shows_the_same(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(calls(READ, text="I look."), calls(text="Tea."))
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first, again = (response_of(respond(client, "go", key, **SHOWN)) for _ in range(2))
    assert first == again
    assert own_calls(first)


def test_agent_answers_when_its_calls_are_used_up(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(calls(READ, READ, text="I look."), calls(text="Tea."))
    response = response_of(respond(client, "go", max_tool_calls=1, **SHOWN))
    assert (response["status"], response["max_tool_calls"], len(own_calls(response))) == ("completed", 1, 1)
    assert upstream.requests[-1].body["tool_choice"] == "none"
    upstream.answers["play"] = Play(calls(READ, text="I look."), calls(READ))
    response = response_of(respond(client, "go", max_tool_calls=1, tools=[function("weather")], **SHOWN))
    assert (response["status"], len(own_calls(response))) == ("incomplete", 1)
    assert [tool["function"]["name"] for tool in upstream.requests[-1].body["tools"]] == ["weather"]


def test_call_that_is_cut_is_incomplete(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(calls(READ, text="I look."))  # and then an error
    given = response_of(respond(client, "go", stream=True, **SHOWN))
    stored = response_of(client.get(f"/v1/responses/{given['id']}"))
    assert given["usage"]["total_tokens"] > 0
    assert given == stored
    assert (given["status"], own_calls(given)) == ("failed", [("read", "completed", FOUND)])
