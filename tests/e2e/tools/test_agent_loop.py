"""Agents with tools through a live gateway, with a stub as the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chat import ask, chunks_of, error_of, streamed_text, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.raw_request import start_request
from support.scripted_upstream import Play, calls
from support.upstream import Upstream, sent
from support.workspace_tools import with_notes

FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway whose agent has a workspace and every tool."""
    directory = tmp_path_factory.mktemp("gateway")
    workspace = str(directory / "workspace")
    agents = [
        {"id": "main", "workspace": workspace, "tools": {"profile": "full"}},
        {"id": "careful", "workspace": workspace},
    ]
    defaults = {"maxTurns": 4, "timeoutSeconds": 30}
    config = stubbed_config(module_upstream.url, "stub/play", agents=agents, defaults=defaults)
    with live_gateway(directory, config) as running:
        yield running


@pytest.fixture(autouse=True)
def workspace(gateway: LiveGateway) -> Path:
    return with_notes(gateway.directory / "workspace")


def test_agent_changes_file_of_its_workspace(client: httpx.Client, upstream: Upstream, workspace: Path) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"}), text="Let me look."),
        calls(("edit", {"path": "notes.txt", "old_text": "milk", "new_text": "oat milk"})),
        calls(text="It says oat milk now."),
    )
    answer = ask(client, "Make it oat milk.")
    assert text_of(answer) == "Let me look.\n\nIt says oat milk now."
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
    assert (workspace / "notes.txt").read_text() == "tea\noat milk\n"
    assert "milk" in sent(upstream, 1)[-1]["content"]


def test_stream_carries_same_text(client: httpx.Client, upstream: Upstream) -> None:
    lines = [calls(("ls", {"path": "."}), text="Looking."), calls(text="Done.")]
    upstream.answers["play"] = Play(*lines)
    assert streamed_text(ask(client, "look", stream=True)) == "Looking.\n\nDone."


def test_failing_tool_is_reported_to_model_which_goes_on(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "../secret"}), ("nonsense", {}), ("read", {"pth": 1})), calls(text="I could not.")
    )
    assert text_of(ask(client, "try")) == "I could not."
    results = [message["content"] for message in sent(upstream)[-3:]]
    assert all(message["role"] == "tool" for message in sent(upstream)[-3:])
    assert "nonsense" in results[1]
    assert "path" in results[2]


def test_unknown_function_is_answered_with_names_of_callers_functions(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(calls(("functions.weather", {"city": "Hue"})), calls(text="I could not."))
    assert text_of(ask(client, "how is it?", tools=[FUNCTION])) == "I could not."
    result = sent(upstream)[-1]["content"]
    assert result.startswith('Unknown tool "functions.weather". Available tools: weather, ')


def test_offered_tools_match_reported_tools(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(calls(text="hi"), calls(text="hi"))
    ask(client, "hi", model="openclaw/careful")
    careful = {tool["function"]["name"] for tool in upstream.requests[-1].body["tools"]}
    ask(client, "hi", model="openclaw/main")
    full = {tool["function"]["name"] for tool in upstream.requests[-1].body["tools"]}
    assert careful == {
        *("read", "ls", "find", "grep"),
        *("session_status", "sessions_list", "sessions_history", "agents_list"),
    }
    assert full == careful | {"write", "edit", "exec", "web_fetch"}


def test_long_call_may_come_in_one_event(client: httpx.Client, upstream: Upstream, workspace: Path) -> None:
    text = "x" * 1_500_000
    upstream.answers["play"] = Play(calls(("write", {"path": "new.txt", "content": text})), calls(text="Done."))
    assert text_of(ask(client, "write")) == "Done."
    assert (workspace / "new.txt").read_text() == text


def test_tool_that_is_not_allowed_is_not_carried_out(client: httpx.Client, upstream: Upstream, workspace: Path) -> None:
    upstream.answers["play"] = Play(calls(("write", {"path": "new.txt", "content": "x"})), calls(text="no"))
    assert text_of(ask(client, "write", model="openclaw/careful")) == "no"
    assert not (workspace / "new.txt").exists()


def test_callers_tool_ends_run_and_its_result_continues_reasoning(client: httpx.Client, upstream: Upstream) -> None:
    key = {"x-openclaw-session-key": "weather"}
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"})),
        calls(("weather", {"city": "Hue"}), ("ls", {"path": "."}), text="One moment."),
        calls(text="Sunny, and there is tea."),
    )
    first = ask(client, "how is it?", tools=[FUNCTION], headers=key).json()["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    assert first["message"]["content"] == "One moment."
    [call] = first["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    assert text_of(ask(client, result, tools=[FUNCTION], headers=key)) == "Sunny, and there is tea."
    roles = [message["role"] for message in sent(upstream)]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "tool"]
    assert sent(upstream)[-2]["content"] == "sunny"


@pytest.mark.parametrize("stream", [False, True])
def test_callers_function_replaces_agents_tool_of_its_name(
    client: httpx.Client, upstream: Upstream, gateway: LiveGateway, stream: bool
) -> None:
    read = {"type": "function", "function": {"name": "read", "description": "The caller's own."}}
    upstream.answers["play"] = Play(calls(("read", {"anything": "goes"})))
    response = ask(client, "hi", tools=[FUNCTION, read], stream=stream, headers={"x-request-id": f"replacing-{stream}"})
    assert '"finish_reason":"tool_calls"' in response.text
    offered = [tool["function"] for tool in upstream.requests[-1].body["tools"]]
    assert [function["description"] for function in offered if function["name"] == "read"] == ["The caller's own."]
    assert "ls" in {function["name"] for function in offered}

    def access_lines() -> list[str]:
        lines = [line for line in gateway.output.splitlines() if "openclaw.access" in line]
        return [line for line in lines if f"request_id=replacing-{stream}" in line]

    until(access_lines)
    [line] = access_lines()
    assert "replaced_tools=read" in line


def test_conflicting_names_are_refused_where_configured(tmp_path: Path, upstream: Upstream) -> None:
    config = stubbed_config(upstream.url, defaults={"workspace": str(tmp_path)})
    config["tools"] = {"callerConflicts": "refuse"}
    tool = {"type": "function", "function": {"name": "read"}}
    with live_gateway(tmp_path / "home", config) as refusing, refusing.client() as client:
        response = ask(client, "hi", tools=[FUNCTION, tool])
    assert error_of(response) == (400, "invalid_value", "tools[1].function.name")
    assert upstream.requests == []


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_demanded_call_runs_no_tool_that_was_not_offered(
    client: httpx.Client, upstream: Upstream, workspace: Path, session: dict[str, str], choice: Any
) -> None:
    upstream.answers["play"] = Play(
        calls(("write", {"path": "new.txt", "content": "x"}), ("weather", {"city": "Hue"})), calls(text="Dry.")
    )
    message = ask(client, "go", tools=[FUNCTION], tool_choice=choice, headers=session).json()["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["weather"]
    assert not (workspace / "new.txt").exists()
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "dry"}
    assert text_of(ask(client, result, tools=[FUNCTION], headers=session)) == "Dry."
    assert [one["role"] for one in sent(upstream)] == ["user", "assistant", "tool"]


def test_last_turn_has_to_be_answer(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(*[calls(("ls", {"path": "."}))] * 3, calls(text="Enough."))
    assert text_of(ask(client, "look")) == "Enough."
    assert upstream.requests[-1].body["tool_choice"] == "none"


def test_in_last_turn_callers_functions_can_still_be_called(client: httpx.Client, upstream: Upstream) -> None:
    looks = [calls(("ls", {"path": "."}))] * 3
    upstream.answers["play"] = Play(*looks, calls(("ls", {"path": "."}), ("weather", {"city": "Hue"}), text="There?"))
    choice = ask(client, "look", tools=[FUNCTION]).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "There?"
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather"]
    last = upstream.requests[-1].body
    assert [tool["function"]["name"] for tool in last["tools"]] == ["weather"]
    assert "tool_choice" not in last


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_in_last_turn_what_is_not_callers_ends_answer(client: httpx.Client, upstream: Upstream, choice: str) -> None:
    upstream.answers["play"] = Play(*[calls(("ls", {"path": "."}))] * 4)
    answer = ask(client, "look", tools=[FUNCTION], tool_choice=choice)
    assert (text_of(answer), answer.json()["choices"][0]["finish_reason"]) == ("", "length")
    assert upstream.requests[-1].body.get("tool_choice") == (None if choice == "auto" else "none")


TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["time", "weather", "weather"]),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, ["weather", "weather"]),
        ({"parallel_tool_calls": False}, ["time"]),
        (
            {"parallel_tool_calls": False, "tool_choice": {"type": "function", "function": {"name": "weather"}}},
            ["weather"],
        ),
    ],
)
def test_calls_of_requested_functions_are_passed_on(
    client: httpx.Client, upstream: Upstream, options: dict[str, Any], names: list[str]
) -> None:
    upstream.answers["play"] = Play(calls(("time", {}), ("weather", {"city": "Hue"}), ("weather", {"city": "Hoi An"})))
    message = ask(client, "go", tools=[FUNCTION, TIME], **options).json()["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == names


def test_hanging_up_ends_running_tool(gateway: LiveGateway, upstream: Upstream, workspace: Path) -> None:
    command = "echo started > began; sleep 30; echo ended > ended"
    upstream.answers["play"] = Play(calls(("exec", {"command": command})), calls(text="never"))
    with start_request(gateway, headers={"x-openclaw-session-key": "long"}, text="run it"):
        until((workspace / "began").exists)
    upstream.answers["play"] = Play(calls(text="I am free."))
    with gateway.client() as client:
        assert text_of(ask(client, "and now?", headers={"x-openclaw-session-key": "long"})) == "I am free."
    assert not (workspace / "ended").exists()


def test_exec_sees_no_secret_of_gateway(upstream: Upstream, gateway: LiveGateway) -> None:
    upstream.answers["play"] = Play(calls(("exec", {"command": "env"})), calls(text="ok"))
    with gateway.client() as client:
        ask(client, "env")
    assert "OPENCLAW" not in sent(upstream)[-1]["content"]


def test_tool_calls_are_no_part_of_stream(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(calls(("ls", {"path": "."})), calls(text="Done."))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(ask(client, "look", stream=True))]
    assert all("tool_calls" not in delta for delta in deltas)


@pytest.mark.parametrize(("choice", "called"), [("none", "weather"), ("required", "ls")])
def test_call_of_function_not_offered_is_not_passed_on(
    client: httpx.Client, upstream: Upstream, choice: str, called: str
) -> None:
    line = calls((called, {"path": "."}))
    upstream.answers["play"] = Play(line, calls(text="I see.")) if choice == "none" else Play(*[line] * 4)
    answer = ask(client, "hi", tools=[FUNCTION], tool_choice=choice)
    if choice == "none":
        assert text_of(answer) == "I see."
    else:
        assert error_of(answer) == (502, "tool_choice_not_met", "tool_choice")


def test_hanging_up_keeps_results_of_tools_that_had_finished(
    gateway: LiveGateway, upstream: Upstream, workspace: Path
) -> None:
    both = calls(("exec", {"command": "echo it is $((40 + 2))"}), ("exec", {"command": "touch second; sleep 30"}))
    upstream.answers["play"] = Play(both, calls(text="never"))
    key = {"x-openclaw-session-key": "kept"}
    with start_request(gateway, headers=key, text="run them"):
        until((workspace / "second").exists)  # which runs after the first
    upstream.answers["play"] = Play(calls(text="I remember."))
    with gateway.client() as client:
        assert text_of(ask(client, "and now?", headers=key)) == "I remember."
    assert "it is 42" in str(sent(upstream))


def test_model_that_never_stops_calling_tools_ends_with_reason_length(
    client: httpx.Client, upstream: Upstream, gateway: LiveGateway
) -> None:
    upstream.answers["play"] = Play(*[calls(("ls", {"path": "."}))] * 4)
    told = len(gateway.output)
    answer = ask(client, "look for ever")
    assert text_of(answer) == ""
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert "the model still called tools when it had to answer" in gateway.output[told:]
