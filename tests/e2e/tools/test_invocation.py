"""The agents' tools, listed and called over HTTP by callers themselves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai import OpenAI
from support.approvals import decide, pending, wait_for_pending
from support.chat import error_of
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.polling import until

PATH = "/tools/invoke"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "note.txt").write_text("remember", encoding="utf-8")
    config = scripted_config()
    config["gateway"]["http"]["endpoints"] |= {"tools": {"enabled": True}, "metrics": {"enabled": True}}
    config["gateway"]["tools"] = {"deny": ["agents_list", "group:web"]}
    full = {"profile": "full", "byProvider": {"scripted": {"deny": ["find"]}}}
    config["agents"]["list"] = [
        {"id": "main"},
        {"id": "worker", "workspace": str(directory), "tools": full},
        {"id": "asker", "workspace": str(directory), "tools": {"profile": "full", "approvals": {"read": "ask"}}},
    ]
    config["tools"] = {"exec": {"sandbox": "off"}}
    with live_gateway(directory, config) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as open_client:
        yield open_client


def call(client: httpx.Client, tool: str, agent: str = "worker", headers: Any = None, **args: Any) -> httpx.Response:
    return client.post(PATH, json={"tool": tool, "args": args, "agentId": agent}, headers=headers)


def result_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    text: str = response.json()["result"]["content"][0]["text"]
    return text


def names(client: httpx.Client, **query: str) -> set[str]:
    listed = client.get("/v1/tools", params=query).raise_for_status().json()
    return {tool["name"] for tool in listed["data"]}


def test_listed_tools_are_those_that_policy_and_operator_allow(client: httpx.Client) -> None:
    assert {"read", "exec"} <= names(client, agent="worker")
    assert not {"find", "agents_list", "web_fetch"} & names(client, agent="worker")
    assert "read" not in names(client)  # the default agent has no workspace
    asker = client.get("/v1/tools", params={"agent": "Asker"}).json()
    assert asker["agent"] == "asker"
    assert {tool["name"]: tool["approval"] for tool in asker["data"]}["read"] == "ask"
    assert error_of(client.get("/v1/tools", params={"agent": "nobody"})) == (404, "model_not_found", "agent")


def test_call_returns_result_and_is_a_run(client: httpx.Client) -> None:
    response = call(client, "read", path="note.txt")
    assert "remember" in result_of(response)
    run = client.get(f"/v1/runs/{response.headers['x-openclaw-run-id']}").raise_for_status().json()
    assert (run["agent"], run["state"], run["model"]) == ("worker", "ok", "gateway/tool")
    listed = client.post(PATH, json={"name": "sessions_list", "args": None, "sessionKey": "agent:worker:desk"})
    assert "agent:worker:desk" not in result_of(listed)  # a call is no turn of its session


def test_call_is_no_run_of_a_model_in_log_and_metrics(client: httpx.Client, gateway: LiveGateway) -> None:
    run_id = call(client, "read", path="note.txt").headers["x-openclaw-run-id"]
    [line] = until(lambda: [one for one in gateway.output.splitlines() if f"openclaw.run run={run_id} " in one])
    assert "model_calls=0" in line
    assert "model=" not in line
    assert "first_output_ms=" not in line
    figures = client.get("/metrics").text
    done = 'openclaw_run_completed_total{agent="worker",model="",outcome="ok",provider="",trigger="http"}'
    assert done in figures
    assert 'provider="gateway"' not in figures
    assert "openclaw_run_time_to_first_token_seconds_count{" not in figures


@pytest.mark.parametrize("tool", ["find", "agents_list", "web_fetch", "nothing"])
def test_tool_that_is_not_listed_is_not_found(client: httpx.Client, tool: str) -> None:
    assert error_of(call(client, tool)) == (404, "tool_not_found", "tool")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, ("missing_required_parameter", "tool")),
        ({"tool": None, "name": None}, ("missing_required_parameter", "tool")),
        ({"tool": ""}, ("invalid_value", "tool")),
        ({"tool": "read", "name": "write"}, ("invalid_value", "name")),
        ({"tool": "read", "args": []}, ("invalid_type", "args")),
        ({"tool": "read", "action": "x"}, ("unsupported_parameter", "action")),
        ({"tool": "read", "dryRun": True}, ("unsupported_parameter", "dryRun")),
        ({"tool": "sessions_list", "sessionKey": "cron:x"}, ("invalid_value", "sessionKey")),
        ({"tool": "sessions_list", "agentId": "main", "sessionKey": "agent:worker:x"}, ("invalid_value", "sessionKey")),
        ({"tool": "read", "agentId": "worker", "args": {"path": 5}}, ("tool_failed", None)),
        ({"tool": "read", "agentId": "worker", "args": {"path": "../x"}}, ("tool_failed", None)),
        ({"tool": "exec", "agentId": "worker", "args": {"command": "exit 3"}}, None),
    ],
)
def test_wrong_calls_are_refused(client: httpx.Client, body: Any, refusal: tuple[str, str | None] | None) -> None:
    response = client.post(PATH, json=body)
    assert error_of(response) == (400, *refusal) if refusal else response.is_success


def test_repeated_call_is_made_once(client: httpx.Client, gateway: LiveGateway) -> None:
    path = gateway.directory / "count.txt"
    for key, path_of_call in (("once", "count.txt"), ("once", "count.txt")):
        response = call(
            client, "exec", headers={"Idempotency-Key": key}, command=f"echo x >> {path_of_call}; echo done"
        )
        assert "done" in result_of(response)
    assert response.headers["Idempotency-Replayed"] == "true"
    assert path.read_text() == "x\n"
    for _ in range(2):
        failed = call(client, "read", headers={"Idempotency-Key": "fails"}, path="missing.txt")
        assert error_of(failed)[:2] == (400, "tool_failed")
    assert error_of(call(client, "write", headers={"Idempotency-Key": "once"}))[:2] == (409, "idempotency_key_reused")


def test_approval_is_asked_for_and_counts_for_its_session(client: httpx.Client) -> None:
    body = {"tool": "read", "args": {"path": "note.txt"}, "sessionKey": "agent:asker:desk"}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, PATH, json=body)
        approval = wait_for_pending(client)
        assert approval["session_key"] == "agent:asker:desk"
        decide(client, approval, "allow-session")
        assert "remember" in result_of(answer.result())
        assert "remember" in result_of(client.post(PATH, json=body))
        denied = pool.submit(client.post, PATH, json={**body, "sessionKey": "agent:asker:other"})
        decide(client, wait_for_pending(client), "deny")
        assert error_of(denied.result())[:2] == (400, "tool_failed")


def test_caller_that_leaves_ends_the_call(client: httpx.Client, gateway: LiveGateway) -> None:
    body = orjson.dumps({"tool": "exec", "agentId": "worker", "args": {"command": "touch begun; sleep 60"}})
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(gateway.address) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until((gateway.directory / "begun").exists)
    until(lambda: not client.get("/v1/runs", params={"state": "running"}).json()["data"])
    last = client.get("/v1/runs", params={"limit": 1}).json()["data"][0]
    assert (last["state"], pending(client)) == ("aborted", [])


def test_sdk_calls_tools(gateway: LiveGateway) -> None:
    with OpenAI(base_url=gateway.url, api_key=TOKEN, max_retries=0) as sdk:
        answer: Any = sdk.post(PATH, body={"tool": "session_status"}, cast_to=object)
        assert answer["ok"] is True
        with pytest.raises(openai.NotFoundError, match="no tool"):
            sdk.post(PATH, body={"tool": "nothing"}, cast_to=object)


def test_switched_off_endpoints_name_their_switch(tmp_path_factory: pytest.TempPathFactory) -> None:
    with live_gateway(tmp_path_factory.mktemp("off"), scripted_config()) as off, off.client() as client:
        for response in (client.get("/v1/tools"), client.post(PATH, json={"tool": "sessions_list"})):
            assert error_of(response)[:2] == (404, "endpoint_disabled")
            assert "gateway.http.endpoints.tools.enabled" in response.json()["error"]["message"]
        head = client.head("/v1/tools")
        assert (head.status_code, head.content) == (404, b"")
