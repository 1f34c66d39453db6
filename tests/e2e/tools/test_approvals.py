"""Tool calls that a person decides, over HTTP, with a stub as the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.approvals import PATH, decide, pending, wait_for_pending
from support.chat import ask, error_of, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.scripted_upstream import Play, calls
from support.upstream import Upstream, sent

WRITE = ("write", {"path": "new.txt", "content": "x"})


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway whose agents differ in their approvals; each run has two seconds, and one runs at a time."""
    directory = tmp_path_factory.mktemp("gateway")

    def agent(agent_id: str, **tools: Any) -> dict[str, Any]:
        return {"id": agent_id, "workspace": str(directory), "tools": {"profile": "full", **tools}}

    agents = [
        agent("main", approvals={"*": "ask", "read": "allow", "edit": "deny"}),
        agent("always", exec={"ask": "always"}),
        agent("missing", exec={"ask": "on-miss"}),
        agent("mode", exec={"mode": "ask"}),
    ]
    defaults = {"timeoutSeconds": 5, "maxConcurrent": 1}
    config = stubbed_config(module_upstream.url, "stub/play", agents=agents, defaults=defaults)
    config["tools"] = {"exec": {"sandbox": "off"}}
    with live_gateway(directory, config) as running:
        yield running


@contextmanager
def asking(client: httpx.Client, text: str = "go", **options: Any) -> Iterator[Future[httpx.Response]]:
    """A request under way."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(ask, client, text, **options)


def in_session(name: str) -> dict[str, str]:
    return {"x-openclaw-session-key": name}


def step(client: httpx.Client, session: str) -> dict[str, Any]:
    """Return the last tool message of a session."""
    messages = client.get(f"/v1/sessions/{session}").json()["messages"]
    found: dict[str, Any] = [message for message in messages if message["role"] == "tool"][-1]
    return found


def test_allowed_call_is_made_and_decision_is_in_transcript(
    client: httpx.Client, upstream: Upstream, gateway: LiveGateway
) -> None:
    upstream.answers["play"] = Play(calls(WRITE, text="Writing."), calls(text="Done."))
    path = gateway.directory / "new.txt"
    path.unlink(missing_ok=True)
    with asking(client, headers=in_session("allowed")) as answer:
        approval = wait_for_pending(client)
        assert (approval["tool"], approval["arguments"]) == ("write", '{"content":"x","path":"new.txt"}')
        assert approval["session_key"] == "agent:main:allowed"
        assert approval["decisions"] == ["allow-once", "allow-session", "deny"]
        assert client.get(f"/v1/runs/{approval['run_id']}").json()["state"] == "waiting"
        assert not path.exists()
        decided = decide(client, approval, "allow-once").json()
        assert text_of(answer.result()) == "Writing.\n\nDone."
    assert path.read_text() == "x"
    assert (decided["state"], decided["decision"]) == ("decided", "allow-once")
    assert decided["decided_by"] == "http 127.0.0.1"
    assert step(client, "allowed")["approval"] == {
        key: decided[key] for key in ("id", "decision", "decided_by", "decided_at")
    }
    assert client.get(f"/v1/runs/{approval['run_id']}").json()["state"] == "ok"


def test_denied_call_is_not_made_and_run_goes_on(
    client: httpx.Client, upstream: Upstream, gateway: LiveGateway
) -> None:
    upstream.answers["play"] = Play(calls(("write", {"path": "denied.txt", "content": "x"})), calls(text="I see."))
    with asking(client, headers=in_session("denied")) as answer:
        decide(client, wait_for_pending(client), "deny")
        assert text_of(answer.result()) == "I see."
    assert not (gateway.directory / "denied.txt").exists()
    assert "A person denied this call of write" in sent(upstream)[-1]["content"]
    assert step(client, "denied")["approval"]["decision"] == "deny"
    [line] = [one for one in gateway.output.splitlines() if "openclaw.tool tool=" in one and ":denied" in one]
    assert "tool=write outcome=denied " in line
    assert line.endswith('decided_by="http 127.0.0.1"')


def test_time_of_decision_is_not_the_runs_and_its_room_is_free_meanwhile(
    client: httpx.Client, upstream: Upstream
) -> None:
    upstream.answers["play"] = Play(calls(WRITE), calls(text="other"), calls(text="Done."))
    with asking(client) as answer:
        approval = wait_for_pending(client)
        # One run at a time: this one needs the room of the one that waits.
        assert text_of(ask(client, "quick question")) == "other"
        time.sleep(5.5)
        decide(client, approval, "allow-once")
        assert text_of(answer.result()) == "Done."


def test_decision_for_session_covers_later_calls_of_tool_in_session_only(
    client: httpx.Client, upstream: Upstream
) -> None:
    upstream.answers["play"] = Play(calls(WRITE), calls(WRITE), calls(text="Twice."))
    with asking(client, headers=in_session("remembered")) as answer:
        decide(client, wait_for_pending(client), "allow-session")
        assert text_of(answer.result()) == "Twice."
    upstream.answers["play"] = Play(calls(("write", {"path": "b", "content": ""})), calls(text="Again."))
    assert text_of(ask(client, "again", headers=in_session("remembered"))) == "Again."
    assert step(client, "remembered")["approval"]["decision"] == "allow-session"
    upstream.answers["play"] = Play(calls(WRITE), calls(text="Elsewhere."))
    with asking(client, headers=in_session("forgetful")) as answer:
        decide(client, wait_for_pending(client), "deny")
        answer.result()
    client.delete("/v1/sessions/remembered").raise_for_status()
    upstream.answers["play"] = Play(calls(WRITE), calls(text="Forgotten."))
    with asking(client, headers=in_session("remembered")) as answer:
        decide(client, wait_for_pending(client), "deny")
        answer.result()


@pytest.mark.parametrize("agent", ["main", "missing", "mode"])
def test_decision_for_session_covers_same_command_only(client: httpx.Client, upstream: Upstream, agent: str) -> None:
    true, false = ("exec", {"command": "true"}), ("exec", {"command": "false"})
    upstream.answers["play"] = Play(calls(true), calls(true), calls(false), calls(text="Done."))
    with asking(client, headers=in_session("commands"), model=f"openclaw/{agent}") as answer:
        decide(client, wait_for_pending(client), "allow-session")
        other = wait_for_pending(client)
        assert other["arguments"] == '{"command":"false"}'
        decide(client, other, "deny")
        assert text_of(answer.result()) == "Done."


def test_exec_ask_always_has_no_decision_for_session(client: httpx.Client, upstream: Upstream) -> None:
    command = ("exec", {"command": "true"})
    upstream.answers["play"] = Play(calls(command), calls(command), calls(text="Done."))
    with asking(client, model="openclaw/always", headers=in_session("always")) as answer:
        first = wait_for_pending(client)
        assert first["decisions"] == ["allow-once", "deny"]
        assert error_of(decide(client, first, "allow-session")) == (400, "invalid_value", "decision")
        decide(client, first, "allow-once")
        second = wait_for_pending(client)
        assert second["id"] != first["id"]
        decide(client, second, "allow-once")
        assert text_of(answer.result()) == "Done."


def test_calls_of_one_turn_are_decided_one_by_one(
    client: httpx.Client, upstream: Upstream, gateway: LiveGateway
) -> None:
    pair = [("write", {"path": name, "content": name}) for name in ("first.txt", "second.txt")]
    upstream.answers["play"] = Play(calls(*pair, ("read", {"path": "openclaw.json"})), calls(text="Done."))
    with asking(client) as answer:
        wait_for_pending(client, 2)
        first, second = sorted(pending(client), key=lambda one: str(one["arguments"]))
        decide(client, second, "deny")
        decide(client, first, "allow-once")
        assert text_of(answer.result()) == "Done."
    assert (gateway.directory / "first.txt").exists()
    assert not (gateway.directory / "second.txt").exists()
    assert sent(upstream)[-1]["role"] == "tool"


def test_call_that_cannot_be_made_is_not_asked_about(client: httpx.Client, upstream: Upstream) -> None:
    large = ("write", {"path": "large.txt", "content": "x" * 70_000})
    upstream.answers["play"] = Play(calls(("write", {"pth": "x"}), large), calls(text="No."))
    assert text_of(ask(client, "go")) == "No."
    wrong, too_large = (message["content"] for message in sent(upstream)[-2:])
    assert "invalid" in wrong
    assert "too many to be approved" in too_large


def test_arguments_are_those_that_tool_gets(client: httpx.Client, upstream: Upstream, gateway: LiveGateway) -> None:
    upstream.answers["play"] = Play(
        {"text": "", "calls": [("write", '{"path": "harmless.txt", "path": "harmful.txt", "content": "x"}')]},
        calls(text="Done."),
    )
    with asking(client) as answer:
        approval = wait_for_pending(client)
        assert approval["arguments"] == '{"content":"x","path":"harmful.txt"}'
        decide(client, approval, "allow-once")
        answer.result()
    assert (gateway.directory / "harmful.txt").exists()


def test_denied_tool_is_not_offered(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(calls(("edit", {"path": "a", "old_text": "b", "new_text": "c"})), calls(text="No."))
    assert text_of(ask(client, "go")) == "No."
    assert "edit" not in {tool["function"]["name"] for tool in upstream.requests[-1].body["tools"]}
    assert 'Unknown tool "edit"' in sent(upstream)[-1]["content"]


def test_first_decision_counts(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(calls(WRITE), calls(text="Done."))
    answers: list[httpx.Response] = []
    with asking(client) as answer:
        approval = wait_for_pending(client)
        voters = [
            threading.Thread(target=lambda one=one: answers.append(decide(client, approval, one)))
            for one in ("allow-once", "deny", "allow-session", "deny")
        ]
        for voter in voters:
            voter.start()
        for voter in voters:
            voter.join()
        answer.result()
    assert sorted(one.status_code for one in answers) == [200, 409, 409, 409]
    assert error_of(decide(client, approval, "deny")) == (409, "approval_closed", "approval_id")


def test_unknown_approval_and_wrong_decision_are_refused(client: httpx.Client) -> None:
    assert error_of(decide(client, {"id": "nobody"}, "deny")) == (404, "approval_not_found", "approval_id")
    assert error_of(decide(client, {"id": "nobody"}, "perhaps")) == (400, "invalid_value", "decision")
    assert error_of(client.post(f"{PATH}/nobody", json={})) == (400, "missing_required_parameter", "decision")
    wrong = {"Authorization": "Bearer wrong"}
    assert client.get(PATH, headers=wrong).status_code == 401
    assert client.post(f"{PATH}/nobody", json={"decision": "deny"}, headers=wrong).status_code == 401


def test_approval_is_cancelled_with_its_run(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(calls(WRITE))
    with asking(client, headers=in_session("cancelled")) as answer:
        approval = wait_for_pending(client)
        client.post(f"/v1/runs/{approval['run_id']}/cancel").raise_for_status()
        assert answer.result().status_code == 503
    assert pending(client) == []
    assert error_of(decide(client, approval, "allow-once"))[1] == "approval_closed"
    assert client.get(f"/v1/runs/{approval['run_id']}").json()["state"] == "aborted"


@pytest.mark.parametrize(("unattended", "made"), [("deny", False), ("allow", True)])
def test_call_that_nobody_decides(upstream: Upstream, tmp_path: Path, unattended: str, made: bool) -> None:
    agents = [{"id": "main", "workspace": str(tmp_path), "tools": {"profile": "full"}}]
    config = stubbed_config(upstream.url, "stub/play", agents=agents)
    config["tools"] = {"approvals": {"group:fs": "ask"}}
    config["approvals"] = {"timeoutSeconds": 0.3, "unattended": unattended}
    upstream.answers["play"] = Play(calls(WRITE), calls(text="Done."))
    with live_gateway(tmp_path, config) as gateway, gateway.client() as client:
        assert text_of(ask(client, "go", headers=in_session("alone"))) == "Done."
        approval = step(client, "alone")["approval"]
    assert (tmp_path / "new.txt").exists() == made
    assert approval["decision"] == ("allow-once" if made else "deny")
    assert approval["decided_by"] is None
    assert f"tool=write outcome={'ok' if made else 'denied'} " in gateway.output
    assert "decided_by=" not in gateway.output
    assert ("Nobody approved" in sent(upstream)[-1]["content"]) != made
