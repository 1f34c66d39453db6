"""Internal tool steps restored for stateless follow-ups, for the right caller only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.chat import ask, text_of, user
from support.live import TOKEN, LiveGateway, live_gateway
from support.pictures import data_uri, picture
from support.scripted_upstream import Play, calls
from support.transcripts import Transcripts
from support.upstream import Exchange, Upstream, sent
from support.workspace_tools import with_notes

from service.agent.conversation import IncomingMessage
from service.agent.events import RunEnded
from service.agent.partial_output import PartialOutput
from service.agent.restored_tool_steps import recall_steps
from service.core.messages import Image, Message, Role, Text, ToolCall, text_message
from service.gateway.run_outcome import to_outcome
from service.storage.database.database import Database
from service.storage.runs.records import AcceptedRun, Protocol

FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway whose agents have a workspace; the model "small" reads little at once."""
    directory = tmp_path_factory.mktemp("gateway")
    stub = {"baseUrl": module_upstream.url, "models": [{"id": "small", "contextWindow": 2000, "maxTokens": 200}]}
    config = {
        "gateway": {
            "auth": {"mode": "token", "token": TOKEN},
            "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
        },
        "agents": {
            "defaults": {"model": "stub/play", "workspace": str(directory / "workspace"), "timeoutSeconds": 30},
            "list": [{"id": "main"}, {"id": "careful"}],
        },
        "models": {"retry": {"attempts": 1}, "providers": {"stub": stub}},
    }
    with live_gateway(directory, config) as running:
        yield running


@pytest.fixture
def upstream(module_upstream: Upstream) -> Upstream:
    module_upstream.forget()
    return module_upstream


@pytest.fixture(autouse=True)
def workspace(gateway: LiveGateway) -> Path:
    return with_notes(gateway.directory / "workspace")


def asked(response: httpx.Response) -> dict[str, Any]:
    """The message that asks for the weather."""
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["weather"]
    return message


def result_of(message: dict[str, Any], text: str = "sunny") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": text}


def test_stateless_follow_up_restores_reasoning(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"}), text="Let me see."),
        calls(("weather", {"city": "Hue"}), ("ls", {"path": "."}), text="One moment."),
        calls(("weather", {"city": "Vinh"}), text="And there?"),
        calls(text="Sunny in both."),
    )
    conversation: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "how is it?"}]
    for weather in ("sunny", "dry"):
        message = ask(client, *conversation, tools=[FUNCTION]).json()["choices"][0]["message"]
        [call] = message["tool_calls"]
        conversation += [message, {"role": "tool", "tool_call_id": call["id"], "content": weather}]
    assert text_of(ask(client, *conversation, tools=[FUNCTION])) == "Sunny in both."
    said = [(message["role"], message.get("content")) for message in sent(upstream)[1:]]
    assert [role for role, _ in said] == [
        "user",
        "assistant",
        *["tool"],
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
    ]
    assert "milk" in str(said[2][1])
    assert {said[4][1], said[5][1]} == {"sunny", "notes.txt (9 bytes)"}
    assert said[-1] == ("tool", "dry")


def test_steps_are_not_restored_for_other_conversation(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"})), calls(("weather", {"city": "Hue"})), calls(text="Sunny.")
    )
    message = ask(client, "how is it?", tools=[FUNCTION]).json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "sunny"}
    assert text_of(ask(client, "another question", message, result, tools=[FUNCTION])) == "Sunny."
    assert [one["role"] for one in sent(upstream)] == ["user", "assistant", "tool"]


def test_steps_are_not_restored_for_other_agent(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"})), calls(("weather", {"city": "Hue"})), calls(text="Sunny.")
    )
    message = ask(client, "how is it?", tools=[FUNCTION]).json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "sunny"}
    answer = ask(client, "how is it?", message, result, tools=[FUNCTION], model="openclaw/careful")
    assert text_of(answer) == "Sunny."
    assert "milk" not in str(sent(upstream))


def test_callers_with_same_question_get_their_own_steps(
    client: httpx.Client, upstream: Upstream, workspace: Path
) -> None:
    lines = (calls(("read", {"path": "notes.txt"})), calls(("weather", {"city": "Hue"})))
    upstream.answers["play"] = Play(*lines, *lines, calls(text="Sunny."), calls(text="Sunny."))
    ann = asked(ask(client, "how is it?", tools=[FUNCTION]))
    (workspace / "notes.txt").write_text("coffee\n")
    ben = asked(ask(client, "how is it?", tools=[FUNCTION]))
    for message, seen in ((ann, "milk"), (ben, "coffee")):
        assert text_of(ask(client, "how is it?", message, result_of(message), tools=[FUNCTION])) == "Sunny."
        assert [one["role"] for one in sent(upstream)] == ["user", "assistant", "tool", "assistant", "tool"]
        assert seen in sent(upstream)[2]["content"]


def test_steps_are_not_restored_without_call_id(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"})), calls(("weather", {"city": "Hue"})), calls(text="Sunny.")
    )
    message = asked(ask(client, "how is it?", tools=[FUNCTION]))
    message["tool_calls"][0]["id"] = "call_0"  # what the provider calls it, and every other one
    assert text_of(ask(client, "how is it?", message, result_of(message), tools=[FUNCTION])) == "Sunny."
    assert "milk" not in str(sent(upstream))


def test_mislabelled_image_does_not_prevent_restoring(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"})), calls(("weather", {"city": "Hue"})), calls(text="Sunny.")
    )
    mislabelled = data_uri(picture("PNG"), "image/webp")
    question = user([{"type": "text", "text": "here?"}, {"type": "image_url", "image_url": {"url": mislabelled}}])
    message = asked(ask(client, question, tools=[FUNCTION]))
    assert text_of(ask(client, question, message, result_of(message), tools=[FUNCTION])) == "Sunny."
    assert "milk" in str(sent(upstream))


def test_reformatted_arguments_do_not_prevent_restoring(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": "notes.txt"})), calls(("weather", {"city": "Hue"})), calls(text="Sunny.")
    )
    message = asked(ask(client, "how is it?", tools=[FUNCTION]))
    function = message["tool_calls"][0]["function"]
    function["arguments"] = orjson.dumps(orjson.loads(function["arguments"]), option=orjson.OPT_INDENT_2).decode()
    assert text_of(ask(client, "how is it?", message, result_of(message), tools=[FUNCTION])) == "Sunny."
    assert "milk" in str(sent(upstream))


def test_summary_during_run_does_not_prevent_restoring(
    client: httpx.Client, upstream: Upstream, workspace: Path
) -> None:
    for number in (1, 2):
        (workspace / f"{number}.txt").write_text(f"chapter {number}\n" + "fruit\n" * 900)
    steps = [calls(("read", {"path": f"{number}.txt"})) for number in (1, 2)]
    play = Play(*steps, calls(("weather", {"city": "Hue"})), calls(text="Sunny."))

    def answer(exchange: Exchange) -> None:
        if "condense" in exchange.body["messages"][0]["content"]:
            exchange.head()
            exchange.event({"content": "They read of fruit."})
            exchange.end()
        else:
            play(exchange)

    upstream.answers["small"] = answer
    small = {"x-openclaw-model": "stub/small"}
    message = asked(ask(client, "how is it?", tools=[FUNCTION], headers=small))
    before = len(upstream.requests)
    assert "They read of fruit." in str(sent(upstream))
    answered = ask(client, "how is it?", message, result_of(message), tools=[FUNCTION], headers=small)
    assert text_of(answered) == "Sunny."
    told = "".join(str(request.body["messages"]) for request in upstream.requests[before:])
    assert "chapter 1" in told


def test_image_given_by_address_equals_fetched_image(database: Database) -> None:
    fetched, address = (
        Message(Role.USER, (Text("here?"), Image(url))) for url in ("data:image/png;base64,AAAA", "https://a.test/b")
    )
    looks = Message(Role.ASSISTANT, tool_calls=(ToolCall("own", "read", "{}"),))
    looked = Message(Role.TOOL, (Text("milk"),), tool_call_id="own")
    asks = Message(Role.ASSISTANT, tool_calls=(ToolCall("asked", "weather", "{}"),))
    with closing(Transcripts(database)) as store:
        run = AcceptedRun("run", "agent:main:x", "main", Protocol.HTTP, 1, stateless=True)
        outcome = to_outcome(RunEnded(), (fetched,), PartialOutput([looks, looked, asks]), "stub/play", ())
        store.storage.ledger.open(run, None).finish(outcome)
        for first, expected in (
            (address, (address, looks, looked, asks)),
            (text_message(Role.USER, "here?"), (text_message(Role.USER, "here?"), asks)),
        ):
            incoming = [IncomingMessage(f"messages[{place}]", one) for place, one in enumerate((first, asks))]
            recalled = recall_steps(incoming, "main", None, store.storage.records, store)
            assert tuple(item.message for item in recalled) == expected
