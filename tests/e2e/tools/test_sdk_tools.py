"""The caller's tools by the helpers of OpenAI's own SDK, beside the agent's tools, over models of both dialects.

What goes to the provider is held against the types of that provider's own SDK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ParsedChatCompletion
from pydantic import BaseModel
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.scripted_upstream import Play, calls
from support.sdk_types import check_request
from support.upstream import Upstream

WEATHER = "weather"


class Weather(BaseModel):
    """How it is outside."""

    city: str


TOOLS = [openai.pydantic_function_tool(Weather, name=WEATHER)]


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, LiveGateway]]:
    """Two agents that may change files, of a model of each dialect."""
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "workspace").mkdir()
    with Upstream() as upstream:
        stub = {"baseUrl": upstream.url, "apiKey": "a-key"}
        tools = {"profile": "coding", "deny": ["exec"]}
        config = stubbed_config(
            upstream.url,
            agents=[{"id": name, "model": f"{name}/play", "tools": tools} for name in ("openai", "anthropic")],
            defaults={"workspace": str(directory / "workspace"), "timeoutSeconds": 30},
            providers={"openai": stub, "anthropic": {**stub, "api": "anthropic-messages"}},
        )
        with live_gateway(directory / "gateway", config) as running:
            yield upstream, running


@pytest.fixture
def upstream(agents: tuple[Upstream, LiveGateway]) -> Upstream:
    agents[0].requests.clear()
    return agents[0]


@pytest.fixture
def workspace(agents: tuple[Upstream, LiveGateway]) -> Path:
    path = agents[1].state_dir.parent.parent / "workspace"
    (path / "notes.txt").write_text("tea\nmilk\n")
    return path


@pytest.fixture
def sdk(agents: tuple[Upstream, LiveGateway]) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{agents[1].url}/v1", api_key=TOKEN, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(params=["openai", "anthropic"])
def model(request: pytest.FixtureRequest) -> str:
    return f"openclaw/{request.param}"


def parse(sdk: OpenAI, **request: Any) -> ParsedChatCompletion[Any]:
    """One answer, by the helper that reads a tool's arguments."""
    return sdk.chat.completions.parse(**request)


def stream(sdk: OpenAI, **request: Any) -> ParsedChatCompletion[Any]:
    """One answer, by the helper that puts a stream together."""
    with sdk.chat.completions.stream(**request) as events:
        return events.get_final_completion()


Helper = Callable[..., ParsedChatCompletion[Any]]


def converse(sdk: OpenAI, helper: Helper, model: str, headers: dict[str, str]) -> tuple[list[Weather], str]:
    """The loop a caller writes: carry out what the model asks until it answers; returns what it asked and its answer.

    In a session only what is new is sent.
    """
    messages: list[Any] = [{"role": "user", "content": "How is it in Hue?"}]
    asked: list[Weather] = []
    while True:
        request = {"model": model, "messages": messages, "tools": TOOLS, "extra_headers": headers}
        choice = helper(sdk, **request).choices[0]
        if choice.finish_reason == "stop":
            return asked, choice.message.content or ""
        assert choice.finish_reason == "tool_calls"
        if headers:
            messages = []
        else:
            messages.append(choice.message.to_dict())
        for call in choice.message.tool_calls or ():
            assert isinstance(call.function.parsed_arguments, Weather)
            asked.append(call.function.parsed_arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})


@pytest.mark.parametrize("helper", [parse, stream])
@pytest.mark.parametrize("session", [False, True])
def test_callers_loop_runs_with_sdks_helpers(
    sdk: OpenAI, upstream: Upstream, workspace: Path, model: str, helper: Helper, session: bool
) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"})),
        calls((WEATHER, {"city": "Hue"}), ("ls", {"path": "."}), text="One moment."),
        calls((WEATHER, {"city": "Hanoi"})),
        calls(text="Sunny, and there is tea."),
    )
    headers = {"x-openclaw-session-key": f"{model}-{helper.__name__}"} if session else {}
    asked, answer = converse(sdk, helper, model, headers)
    assert asked == [Weather(city="Hue"), Weather(city="Hanoi")]
    assert answer == "Sunny, and there is tea."
    assert (workspace / "notes.txt").exists()
    assert len(upstream.requests) == 4
    for received in upstream.requests:
        check_request(received)


def test_agent_changes_file_by_read_and_edit(sdk: OpenAI, upstream: Upstream, workspace: Path, model: str) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"}), text="Let me look."),
        calls(("edit", {"path": "notes.txt", "old_text": "milk", "new_text": "oat milk"})),
        calls(text="It says oat milk now."),
    )
    said = stream(sdk, model=model, messages=[{"role": "user", "content": "Make it oat milk."}])
    assert said.choices[0].message.content == "Let me look.\n\nIt says oat milk now."
    assert (workspace / "notes.txt").read_text() == "tea\noat milk\n"
    for received in upstream.requests:
        check_request(received)
