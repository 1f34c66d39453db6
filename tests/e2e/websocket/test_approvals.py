"""Approvals over the WebSocket, as OpenClaw's clients list, follow and decide them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.approvals import decide, pending
from support.live import LiveGateway, live_gateway, stubbed_config
from support.operator_client import OperatorClient, operator_client
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

SCOPES = ["operator.approvals", "operator.write"]


def config_of(workspace: Path, upstream: Upstream) -> dict[str, Any]:
    """A configuration whose agent asks about everything."""
    agents = [{"id": "main", "workspace": str(workspace), "tools": {"profile": "full", "approvals": {"*": "ask"}}}]
    return {**stubbed_config(upstream.url, "stub/play", agents=agents), "tools": {"exec": {"sandbox": "off"}}}


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("gateway")
    with live_gateway(directory, config_of(directory, module_upstream)) as running:
        yield running


@pytest.fixture
def operator(gateway: LiveGateway) -> Iterator[OperatorClient]:
    with operator_client(gateway, scopes=SCOPES) as client:
        yield client


def start(operator: OperatorClient, upstream: Upstream, call: tuple[str, dict[str, Any]], run_id: str) -> str:
    """Start a run whose model makes a call; returns the request's id."""
    upstream.answers["play"] = Play(calls(call), calls(text="Done."))
    session = f"agent:main:{run_id}"
    request = operator.send("agent", {"message": "go", "idempotencyKey": run_id, "sessionKey": session})
    assert operator.response(request)["payload"]["status"] == "accepted"
    return request


def test_request_is_announced_listed_and_resolved(
    operator: OperatorClient, gateway: LiveGateway, upstream: Upstream
) -> None:
    with operator_client(gateway, scopes=["operator.write"]) as other:
        request = start(operator, upstream, ("exec", {"command": "echo hi"}), "announced")
        requested = operator.event("exec.approval.requested")["payload"]
        shown = requested["request"]
        assert (shown["command"], shown["sessionKey"]) == ("echo hi", "agent:main:announced")
        assert shown["runId"] == "announced"
        assert shown["allowedDecisions"] == ["allow-once", "allow-always", "deny"]
        assert requested["expiresAtMs"] - requested["createdAtMs"] == 600_000
        assert operator.call("exec.approval.list", {}) == [requested]
        found = operator.call("exec.approval.get", {"id": requested["id"]})
        assert (found["commandText"], found["host"]) == ("echo hi", "gateway")
        answer = operator.call("exec.approval.resolve", {"id": requested["id"], "decision": "allow-once"})
        assert answer == {"ok": True}
        resolved = operator.event("exec.approval.resolved", id=requested["id"])["payload"]
        assert (resolved["decision"], resolved["resolvedBy"]) == ("allow-once", "websocket test")
        assert operator.response(request)["payload"]["status"] == "ok"
        assert "hi" in upstream.requests[-1].body["messages"][-1]["content"]
        other.call("health")
        assert not [frame for frame in other.frames if frame.get("event", "").startswith("exec.approval")]


def test_allow_always_is_remembered_for_session(operator: OperatorClient, upstream: Upstream) -> None:
    request = start(operator, upstream, ("write", {"path": "a", "content": "x"}), "always")
    requested = operator.event("exec.approval.requested")["payload"]
    assert requested["request"]["command"] == 'write {"content":"x","path":"a"}'
    operator.call("exec.approval.resolve", {"id": requested["id"], "decision": "allow-always"})
    assert operator.response(request)["payload"]["status"] == "ok"
    upstream.answers["play"] = Play(calls(("write", {"path": "b", "content": "y"})), calls(text="Done."))
    _, outcome = operator.run("again", "always-2", sessionKey="agent:main:always")
    assert outcome["payload"]["status"] == "ok"


def test_decision_over_http_is_announced_and_waited_for(
    operator: OperatorClient, client: httpx.Client, upstream: Upstream
) -> None:
    request = start(operator, upstream, ("write", {"path": "c", "content": "x"}), "http")
    approval_id = operator.event("exec.approval.requested")["payload"]["id"]
    waiting = operator.send("exec.approval.waitDecision", {"id": approval_id})
    assert operator.call("exec.approval.waitDecision", {"id": approval_id, "timeoutMs": 1})["decision"] is None
    decide(client, {"id": approval_id}, "deny").raise_for_status()
    ended: dict[str, Any] = {}
    while len(ended) < 2:  # in either order
        frame = operator.receive_until(lambda one: one.get("id") in (waiting, request))
        ended[frame["id"]] = frame["payload"]
    assert ended[waiting]["decision"] == "deny"
    assert ended[request]["status"] == "ok"
    assert operator.event("exec.approval.resolved", id=approval_id)["payload"]["resolvedBy"] == "http 127.0.0.1"


def test_second_and_unknown_decisions_are_refused_with_their_reason(
    operator: OperatorClient, upstream: Upstream
) -> None:
    start(operator, upstream, ("write", {"path": "d", "content": "x"}), "twice")
    approval_id = operator.event("exec.approval.requested")["payload"]["id"]
    wrong = operator.refusal("exec.approval.resolve", {"id": approval_id, "decision": "perhaps"})
    assert (wrong["code"], wrong["details"]["param"]) == ("INVALID_REQUEST", "decision")
    operator.call("exec.approval.resolve", {"id": approval_id, "decision": "deny"})
    again = operator.refusal("exec.approval.resolve", {"id": approval_id, "decision": "deny"})
    assert (again["code"], again["details"]["reason"]) == ("INVALID_REQUEST", "APPROVAL_ALREADY_RESOLVED")
    for method in ("exec.approval.get", "exec.approval.waitDecision"):
        assert operator.refusal(method, {"id": "nobody"})["details"]["reason"] == "APPROVAL_NOT_FOUND"
    unknown = operator.refusal("exec.approval.resolve", {"id": "nobody", "decision": "deny"})
    assert "unknown or expired approval id" in unknown["message"]


@pytest.mark.parametrize("scope", ["operator.read", "operator.write"])
def test_scope_of_approvals_is_needed(gateway: LiveGateway, scope: str) -> None:
    requests = {"list": {}, "resolve": {"id": "x", "decision": "deny"}, "request": {"command": "x"}}
    with operator_client(gateway, scopes=[scope]) as client:
        for method, params in requests.items():
            refusal = client.refusal(f"exec.approval.{method}", params)
            assert (refusal["code"], refusal["details"]["missingScope"]) == ("FORBIDDEN", "operator.approvals")


def test_client_asks_about_command_of_its_own(
    operator: OperatorClient, gateway: LiveGateway, client: httpx.Client
) -> None:
    asked = {"id": "mine", "command": "make", "cwd": "/src", "agentId": None, "twoPhase": True, "timeoutMs": 60_000}
    request = operator.send("exec.approval.request", asked)
    accepted = operator.response(request)["payload"]
    assert (accepted["status"], accepted["id"]) == ("accepted", "mine")
    (listed,) = pending(client)
    assert (listed["arguments"], listed["decisions"]) == ('{"command":"make","cwd":"/src"}', ["allow-once", "deny"])
    twice = operator.refusal("exec.approval.request", {"id": "mine", "command": "make"})
    assert twice["details"]["param"] == "id"
    with operator_client(gateway, scopes=["operator.approvals"]) as reviewer:
        reviewer.call("exec.approval.resolve", {"id": "mine", "decision": "allow-once"})
    outcome = operator.response(request)["payload"]
    assert (outcome["id"], outcome["decision"]) == ("mine", "allow-once")
    expired = operator.call("exec.approval.request", {"command": "make", "timeoutMs": 50})
    assert expired["decision"] is None
    assert operator.refusal("exec.approval.request", {"cwd": "/"})["details"]["param"] == "command"


def test_approvals_of_other_process_are_announced(upstream: Upstream, tmp_path: Path) -> None:
    config, env = config_of(tmp_path, upstream), {"OPENCLAW_STATE_DIR": str(tmp_path / "state")}
    with (
        live_gateway(tmp_path / "a", config, env=env) as first,
        live_gateway(tmp_path / "b", config, env=env) as second,
        operator_client(first, scopes=SCOPES) as here,
        operator_client(second, scopes=SCOPES) as there,
    ):
        request = start(here, upstream, ("write", {"path": "e", "content": "x"}), "far")
        requested = there.event("exec.approval.requested")["payload"]
        assert requested["request"]["runId"] == "far"
        there.call("exec.approval.resolve", {"id": requested["id"], "decision": "allow-once"})
        assert here.response(request)["payload"]["status"] == "ok"
        assert here.event("exec.approval.resolved", id=requested["id"])["payload"]["decision"] == "allow-once"
    assert (tmp_path / "e").exists()
