"""Limits of conversations, end to end: context windows, images, concurrent runs, tools of MCP servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chat import ask, error_of, text_of, user
from support.live import LiveGateway, live_gateway, scripted_config, stubbed_config
from support.pictures import data_uri, picture
from support.polling import until
from support.scripted_upstream import Play, calls
from support.upstream import Exchange, Upstream
from support.upstream_answers import refuse

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAA"
    "fFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WINDOW = 2000


#: Each is asked by one test alone: what is learned of a model is not forgotten.
MODELS: list[dict[str, Any]] = [
    {"id": "narrow", "contextWindow": WINDOW, "maxTokens": 200},
    {"id": "reading", "contextWindow": WINDOW, "maxTokens": 200},
    {"id": "wide", "contextWindow": 100_000},
    {"id": "small", "contextWindow": 1600, "maxTokens": 200},
    {"id": "seeing", "input": ["text", "image"]},
    {"id": "echo", "input": ["text"]},
]


def relay_config(upstream: Upstream, workspace: Path) -> dict[str, Any]:
    agents = [
        {"id": "main", "default": True},
        {"id": "falling", "model": {"primary": "stub/wide", "fallbacks": ["stub/small"]}},
        {"id": "seeing", "model": {"primary": "stub/seeing", "fallbacks": ["stub/echo"]}},
    ]
    defaults = {"workspace": str(workspace)}
    return stubbed_config(upstream.url, "stub/play", agents=agents, defaults=defaults, models=MODELS)


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("relay")
    with live_gateway(directory, relay_config(module_upstream, directory)) as running:
        yield running


@pytest.fixture
def relayed(relay: LiveGateway) -> Iterator[httpx.Client]:
    with relay.client() as connected:
        yield connected


def by(model: str) -> dict[str, str]:
    return {"x-openclaw-model": f"stub/{model}"}


def summarising(exchange: Exchange) -> None:
    """Answers with a summary where one is asked for, else with a short text; counts a token for four characters."""
    size = len(str(exchange.body["messages"])) // 4
    wanted = (
        "summar" in str(exchange.body["messages"][0]).lower() or "summar" in str(exchange.body["messages"][-1]).lower()
    )
    exchange.head()
    exchange.event({"content": "SUMMARY: they talked about fruit." if wanted else f"answer to {size} tokens"})
    exchange.event({}, "stop", usage={"prompt_tokens": size, "completion_tokens": 9})
    exchange.send(b"data: [DONE]\n\n")
    exchange.last_chunk()


def test_long_session_continues_within_window(
    relayed: httpx.Client, upstream: Upstream, session: dict[str, str]
) -> None:
    upstream.answers["narrow"] = summarising
    for number in range(12):
        text_of(ask(relayed, f"number {number}: " + "fruit " * 150, headers=session | by("narrow")))
    sizes = [len(str(request.body["messages"])) / 4 for request in upstream.requests]
    assert max(sizes) < WINDOW
    assert "SUMMARY" in str(upstream.requests[-1].body["messages"])
    assert "number 11" in str(upstream.requests[-1].body["messages"][-1])


def strict(exchange: Exchange) -> None:
    """As `summarising`, for no more than about 1500 tokens."""
    if len(str(exchange.body["messages"])) > 6000:
        text = "This model's maximum context length is 1500 tokens. However, your messages resulted in 2000 tokens."
        exchange.json(400, {"error": {"message": text, "code": "context_length_exceeded"}})
    else:
        summarising(exchange)


def test_context_overflow_is_resolved_by_summary(
    relayed: httpx.Client, upstream: Upstream, session: dict[str, str]
) -> None:
    upstream.answers["strict"] = strict
    for number in range(8):
        text_of(ask(relayed, f"number {number}: " + "fruit " * 200, headers=session | by("strict")))
    assert "SUMMARY" in str(upstream.requests[-1].body["messages"])


def test_fallback_with_smaller_window_gets_compacted_conversation(
    relayed: httpx.Client, upstream: Upstream, session: dict[str, str]
) -> None:
    upstream.answers |= {"wide": lambda exchange: refuse(exchange, 503), "small": strict}
    for number in range(8):
        said = f"number {number}: " + "fruit " * 200
        text_of(ask(relayed, said, headers=session, model="openclaw/falling"))
    assert "SUMMARY" in str(upstream.requests[-1].body["messages"])
    assert len(str(upstream.requests[-1].body["messages"])) < 6000


def test_large_result_is_truncated_instead_of_summarised(
    relay: LiveGateway, relayed: httpx.Client, upstream: Upstream
) -> None:
    (relay.directory / "large.txt").write_text("begins here\n" + "fruit\n" * 3_000)
    upstream.answers["reading"] = Play(calls(("read", {"path": "large.txt"})), calls(text="I see."))
    assert text_of(ask(relayed, "look", headers=by("reading"))) == "I see."
    asked, called, found = upstream.requests[-1].body["messages"][-3:]
    assert (asked["content"], called["tool_calls"][0]["function"]["name"]) == ("look", "read")
    assert "begins here" in found["content"]
    assert "left out here" in found["content"]


def test_images_are_checked_before_model_request(client: httpx.Client) -> None:
    cut = f"{PNG[:40]}AAAA"
    for url, expected in ((cut, "picture"), ("https://example.com/cat.png", "allowUrl")):
        response = ask(client, user([{"type": "image_url", "image_url": {"url": url}}]))
        assert error_of(response) == (400, "invalid_value", "messages[0].content[0].image_url.url")
        assert expected in response.text or "image" in response.text
    nine = [{"type": "image_url", "image_url": {"url": PNG}}] * 9
    assert error_of(ask(client, user(nine)))[:2] == (400, "invalid_value")
    assert ask(client, user([*nine[:8], {"type": "text", "text": "look"}])).status_code == 200


def test_image_beyond_limit_is_refused_with_limit(client: httpx.Client) -> None:
    for size in (11_000_000, 15_000_000):
        answer = ask(
            client, user([{"type": "image_url", "image_url": {"url": data_uri(picture("PNG") + bytes(size))}}])
        )
        assert error_of(answer) == (400, "invalid_value", "messages[0].content[0].image_url.url")
        assert "larger than 10 MiB, the limit for one image" in answer.text


def test_image_type_is_detected_from_content(relayed: httpx.Client, upstream: Upstream) -> None:
    jpeg = picture("JPEG")
    names = ("image/jpg", "image/png", "application/octet-stream", "image/jpeg;charset=utf-8", "")
    for name in names:
        shown = user([{"type": "image_url", "image_url": {"url": data_uri(jpeg, name)}}])
        assert ask(relayed, shown, headers=by("ok")).status_code == 200, name
        [part] = upstream.requests[-1].body["messages"][-1]["content"]
        assert part["image_url"]["url"] == data_uri(jpeg, "image/jpeg")


@pytest.mark.parametrize("as_fallback", [False, True])
def test_model_without_image_input_gets_note_for_old_image_and_refuses_new_one(
    relayed: httpx.Client, upstream: Upstream, session: dict[str, str], *, as_fallback: bool
) -> None:
    upstream.answers["seeing"] = Play(calls(text="A cat."))
    headers = session | {"x-openclaw-agent-id": "seeing"}
    blind = headers if as_fallback else headers | by("echo")
    shown = user([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PNG}}])
    assert text_of(ask(relayed, shown, headers=headers)) == "A cat."
    upstream.answers["seeing"] = lambda exchange: refuse(exchange, 503)
    assert text_of(ask(relayed, "How old?", headers=blind)) == "How old?"
    noted = upstream.requests[-1].body["messages"][-3]["content"]
    assert noted == "What is it?\n[picture left out: this model takes no pictures]\n"
    answer = ask(relayed, shown, headers=blind)
    expected = (502, "provider_error", None) if as_fallback else (400, "invalid_value", "messages[0].content")
    assert error_of(answer) == expected


def test_runs_beyond_limit_are_refused_with_limit(tmp_path: Path) -> None:
    config = scripted_config()
    config["agents"]["defaults"]["maxConcurrent"] = 1
    slow = {"x-openclaw-model": "scripted/slow"}
    with live_gateway(tmp_path, config) as running, running.client() as client, ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda number: ask(client, f"n{number}", headers=slow), range(8)))
    statuses = sorted(response.status_code for response in responses)
    assert statuses[0] == 200
    refused = [response for response in responses if response.status_code == 429]
    assert refused
    assert error_of(refused[0])[1] == "too_many_runs"
    assert refused[0].headers["retry-after"] == "1"


def test_agent_uses_tools_of_mcp_server(upstream: Upstream, tmp_path: Path) -> None:
    lines = iter([[("files__add", '{"a": 2, "b": 3}')], []])

    def play(exchange: Exchange) -> None:
        calls = next(lines)
        exchange.head()
        pieces = [
            {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls
        ]
        exchange.event({"tool_calls": pieces} if pieces else {"content": "done"})
        exchange.end("tool_calls" if pieces else "stop")

    upstream.answers["play"] = play
    server = tmp_path / "server.py"
    server.write_text(
        "from mcp.server import MCPServer\n"
        "server = MCPServer('files')\n"
        "@server.tool()\n"
        "def add(a: int, b: int) -> int:\n"
        "    '''Add.'''\n"
        "    return a + b\n"
        "server.run()\n"
    )
    config = relay_config(upstream, tmp_path)
    config["agents"]["defaults"]["timeoutSeconds"] = 60
    config["tools"] = {"allow": ["files__*"]}
    config["mcp"] = {"servers": {"files": {"command": sys.executable, "args": [str(server)]}}}
    with live_gateway(tmp_path / "gateway", config) as running, running.client(timeout=60) as client:

        def is_offered() -> bool:
            text_of(ask(client, "hi", headers={"x-openclaw-model": "stub/ok"}))
            return "files__add" in str(upstream.requests[-1].body.get("tools"))

        until(is_offered)  # a run waits 5 s for what a server offers; on a busy machine that may be too short
        assert text_of(ask(client, "add")) == "done"
        result = upstream.requests[-1].body["messages"][-1]
        assert (result["role"], "5" in result["content"]) == ("tool", True)
