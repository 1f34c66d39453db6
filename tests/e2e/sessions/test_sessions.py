"""Sessions over HTTP: memory, keys, and merging of resent history."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from support.chat import ask, error_of, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.upstream import Upstream

from service.core.messages import NO_USER_MESSAGE


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway whose model is a stub that records what it is sent."""
    directory = tmp_path_factory.mktemp("relay")
    (directory / "workspace").mkdir()
    (directory / "workspace" / "AGENTS.md").write_text("Answer in rhymes.")
    (directory / "workspace" / "SOUL.md").write_text("x" * 30_000)
    kind = {"id": "main", "instructions": "You are kind.", "workspace": str(directory / "workspace")}
    config = stubbed_config(module_upstream.url, agents=[kind], defaults={"timeoutSeconds": 20})
    with live_gateway(directory, config) as running:
        yield running


@pytest.fixture
def talk(relay: LiveGateway) -> Iterator[httpx.Client]:
    with relay.client() as client:
        yield client


def last_messages(upstream: Upstream) -> list[tuple[str, object]]:
    """Return the messages of the last model request, without the system prompt."""
    messages = upstream.requests[-1].body["messages"]
    return [(message["role"], message.get("content")) for message in messages if message["role"] != "system"]


def test_request_without_key_or_user_is_stateless(talk: httpx.Client, upstream: Upstream) -> None:
    first, second = ask(talk, "one"), ask(talk, "two")
    assert last_messages(upstream) == [("user", "two")]
    assert first.headers["x-openclaw-session-key"] != second.headers["x-openclaw-session-key"]


def test_user_continues_their_session(talk: httpx.Client, upstream: Upstream) -> None:
    name = f"anna-{uuid.uuid4()}"
    answer = text_of(ask(talk, "one", user=name))
    response = ask(talk, "two", user=name)
    assert last_messages(upstream) == [("user", "one"), ("assistant", answer), ("user", "two")]
    assert response.headers["x-openclaw-session-key"] == f"agent:main:openai-user:{name}"
    ask(talk, "three", user=name.upper())
    assert last_messages(upstream) == [("user", "three")]


def test_empty_user_counts_as_absent(talk: httpx.Client) -> None:
    assert ask(talk, "one", user="").headers["x-openclaw-session-key"].startswith("agent:main:openai:")


def test_resent_history_is_not_stored_twice(talk: httpx.Client, upstream: Upstream) -> None:
    key = {"x-openclaw-session-key": f"resend-{uuid.uuid4()}"}
    answer = text_of(ask(talk, "one", headers=key))
    ask(talk, "one", {"role": "assistant", "content": answer}, "two", headers=key)
    assert last_messages(upstream) == [("user", "one"), ("assistant", answer), ("user", "two")]


def test_empty_session_is_seeded_with_request_history(talk: httpx.Client, upstream: Upstream) -> None:
    key = {"x-openclaw-session-key": f"seed-{uuid.uuid4()}"}
    ask(talk, "zero", {"role": "assistant", "content": "nil"}, "one", headers=key)
    ask(talk, "two", headers=key)
    assert [content for role, content in last_messages(upstream) if role == "user"] == ["zero", "one", "two"]


def test_request_without_new_message_is_refused(talk: httpx.Client) -> None:
    key = {"x-openclaw-session-key": f"stale-{uuid.uuid4()}"}
    answer = text_of(ask(talk, "one", headers=key))
    response = ask(talk, "one", {"role": "assistant", "content": answer}, headers=key)
    assert error_of(response) == (400, "missing_required_parameter", "messages")


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_alone_are_answered_and_continued(talk: httpx.Client, upstream: Upstream, role: str) -> None:
    key = {"x-openclaw-session-key": f"instructed-{uuid.uuid4()}"}
    instructions = {"role": role, "content": "Say hello."}
    answer = text_of(ask(talk, instructions, headers=key))
    assert last_messages(upstream) == []
    assert text_of(ask(talk, instructions, headers=key)) == answer
    assert last_messages(upstream)[-2:] == [("assistant", answer), ("user", NO_USER_MESSAGE)]
    ask(talk, "two", headers=key)
    assert last_messages(upstream)[-1] == ("user", "two")


def test_returned_session_key_continues_session(talk: httpx.Client, upstream: Upstream) -> None:
    key = ask(talk, "one").headers["x-openclaw-session-key"]
    again = ask(talk, "two", headers={"x-openclaw-session-key": key})
    assert again.headers["x-openclaw-session-key"] == key
    assert ("user", "one") in last_messages(upstream)


def test_non_ascii_key_is_percent_encoded_both_ways(talk: httpx.Client, upstream: Upstream) -> None:
    key = quote(f"Nguyễn Văn {uuid.uuid4()}")
    first = ask(talk, "one", headers={"x-openclaw-session-key": key})
    assert first.headers["x-openclaw-session-key"].startswith("agent:main:nguy%E1%BB%85n%20v%C4%83n%20")
    ask(talk, "two", headers={"x-openclaw-session-key": first.headers["x-openclaw-session-key"]})
    assert ("user", "one") in last_messages(upstream)


@pytest.mark.parametrize("key", ["subagent:x", "Cron:1", "agent:main:acp:1", "%20cron:1", "%00", "%ff", "50%", "a%0Ab"])
def test_reserved_and_malformed_keys_are_refused(talk: httpx.Client, key: str) -> None:
    response = ask(talk, "hi", headers={"x-openclaw-session-key": key})
    assert error_of(response) == (400, "invalid_value", "x-openclaw-session-key")


def test_runs_of_one_session_are_serialized(talk: httpx.Client, upstream: Upstream) -> None:
    key = {"x-openclaw-session-key": f"queue-{uuid.uuid4()}", "x-openclaw-model": "stub/slow"}
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda number: ask(talk, f"n{number}", headers=key), range(4)))
    assert [response.status_code for response in responses] == [200] * 4
    roles = [role for role, _ in last_messages(upstream)]
    assert roles == ["user", "assistant"] * 3 + ["user"]


def test_sessions_outlive_gateway(upstream: Upstream, tmp_path: Path) -> None:
    config = stubbed_config(upstream.url)
    with live_gateway(tmp_path, config) as first, first.client() as client:
        answer = text_of(ask(client, "one", user="anna"))
        first.process.kill()  # a received answer is stored, however the process ends
    with live_gateway(tmp_path, config) as second, second.client() as client:
        ask(client, "two", user="anna")
    assert last_messages(upstream) == [("user", "one"), ("assistant", answer), ("user", "two")]


def test_system_prompt_precedes_conversation(talk: httpx.Client, upstream: Upstream) -> None:
    extra = {"role": "developer", "content": "Be brief."}
    ask(
        talk, {"role": "system", "content": "Speak French."}, extra, "hi", headers={"x-openclaw-message-channel": "sms"}
    )
    system = upstream.requests[-1].body["messages"][0]
    assert system["role"] == "system"
    order = ["You are kind.", "Answer in rhymes.", "SOUL.md is longer", "channel sms", "Speak French.", "Be brief."]
    places = [system["content"].index(text) for text in order]
    assert places == sorted(places)


def test_roles_and_tool_calls_reach_model_unchanged(talk: httpx.Client, upstream: Upstream) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ask(
        talk,
        "a",
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    )
    sent = upstream.requests[-1].body["messages"][1:]
    assert sent[1]["tool_calls"] == [call]
    assert (sent[2]["role"], sent[2]["tool_call_id"], sent[2]["content"]) == ("tool", "c1", "42")


def test_older_function_protocol_is_translated(talk: httpx.Client, upstream: Upstream) -> None:
    calling = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    ask(talk, "a", calling, {"role": "function", "name": "f", "content": "42"})
    sent = upstream.requests[-1].body["messages"][1:]
    assert sent[1]["tool_calls"][0]["function"]["name"] == "f"
    assert sent[2]["tool_call_id"] == sent[1]["tool_calls"][0]["id"]


def test_call_without_result_gets_placeholder_result(talk: httpx.Client, upstream: Upstream) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ask(talk, "a", {"role": "assistant", "tool_calls": [call]}, "never mind")
    assert upstream.requests[-1].body["messages"][3]["content"] == "(no result)"


def test_required_call_that_is_not_made_is_502(talk: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    response = ask(talk, "hi", tools=[tool], tool_choice="required")
    assert error_of(response) == (502, "tool_choice_not_met", "tool_choice")
