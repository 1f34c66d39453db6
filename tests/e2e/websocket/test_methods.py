"""The methods: runs that are accepted, waited for, aborted and found again; sessions; what there is."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.chat import ask, text_of
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.operator_client import OperatorClient, operator_client


def fresh(name: str) -> str:
    """A name that no other test uses."""
    return f"{name}-{uuid.uuid4()}"


@pytest.fixture
def operator(gateway: LiveGateway) -> Iterator[OperatorClient]:
    with operator_client(gateway) as client:
        yield client


def texts(history: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"][0]["text"]) for message in history["messages"]]


def test_agent_answers_twice_and_the_same_key_once(operator: OperatorClient) -> None:
    key, session = fresh("key"), fresh("session")
    accepted, final = operator.run("hello there", key, sessionKey=session)
    assert accepted["payload"] | {"acceptedAt": 0} == {
        "runId": key,
        "sessionKey": f"agent:main:{session}",
        "agentId": "main",
        "status": "accepted",
        "acceptedAt": 0,
    }
    outcome = final["payload"]
    assert (outcome["runId"], outcome["status"], outcome["summary"]) == (key, "ok", "completed")
    assert outcome["result"]["payloads"] == [{"text": "hello there", "mediaUrl": None}]
    assert outcome["result"]["meta"]["agentMeta"]["model"] == "echo"
    again = operator.send("agent", {"message": "hello there", "idempotencyKey": key, "sessionKey": session})
    assert operator.response(again)["payload"] == outcome
    assert operator.call("chat.history", {"sessionKey": session})["messages"][2:] == []


def test_a_key_with_another_message_is_refused(operator: OperatorClient) -> None:
    key = fresh("key")
    operator.run("one", key)
    error = operator.refusal("agent", {"message": "two", "idempotencyKey": key})
    assert error["details"] == {"code": "INVALID_VALUE", "param": "idempotencyKey"}


def test_two_who_ask_with_one_key_hear_of_one_run(gateway: LiveGateway) -> None:
    key, session = fresh("key"), fresh("session")
    params = {"message": "x", "idempotencyKey": key, "sessionKey": session, "model": "scripted/slow"}
    with operator_client(gateway) as first, operator_client(gateway) as second:
        ids = first.send("agent", params), second.send("agent", params)
        outcomes = []
        for client, request_id in zip((first, second), ids, strict=True):
            assert client.response(request_id)["payload"]["status"] == "accepted"
            outcomes.append(client.response(request_id)["payload"])
        assert outcomes[0] == outcomes[1]
        assert len(first.call("chat.history", {"sessionKey": session})["messages"]) == 2


def test_failed_run_is_reported_with_payload(operator: OperatorClient) -> None:
    key = fresh("key")
    _, final = operator.run("x", key, model="scripted/fail-provider_error")
    assert final["ok"] is False
    assert final["payload"]["status"] == "error"
    assert final["error"]["code"] == "UNAVAILABLE"
    assert final["error"]["details"]["code"] == "PROVIDER_ERROR"
    assert final["error"]["message"] == final["payload"]["summary"]
    assert operator.call("agent.wait", {"runId": key})["status"] == "error"


def test_a_run_is_waited_for_and_aborted(operator: OperatorClient) -> None:
    key, session = fresh("key"), fresh("session")
    params = {"message": "x", "idempotencyKey": key, "sessionKey": session, "model": "scripted/silent"}
    request_id = operator.send("agent", params)
    assert operator.response(request_id)["payload"]["status"] == "accepted"
    waited = operator.call("agent.wait", {"runId": key, "timeoutMs": 50})
    assert (waited["status"], "endedAt" in waited) == ("timeout", False)
    assert operator.call("chat.abort", {"sessionKey": session}) == {"ok": True, "aborted": True, "runIds": [key]}
    outcome = operator.response(request_id)["payload"]
    assert (outcome["status"], outcome["summary"], outcome["stopReason"]) == ("timeout", "aborted", "rpc")
    assert operator.call("agent.wait", {"runId": key})["stopReason"] == "rpc"
    assert operator.call("chat.abort", {"sessionKey": session})["aborted"] is False


def test_a_run_that_waits_for_its_session_can_be_aborted_by_its_id(operator: OperatorClient) -> None:
    first, second, session = fresh("first"), fresh("second"), fresh("session")
    ids = []
    for key in (first, second):
        params = {"message": "x", "idempotencyKey": key, "sessionKey": session, "model": "scripted/silent"}
        ids.append(operator.send("agent", params))
        assert operator.response(ids[-1])["payload"]["status"] == "accepted"
    time.sleep(0.2)
    assert operator.call("chat.abort", {"sessionKey": session, "runId": second})["runIds"] == [second]
    assert operator.response(ids[1])["payload"]["summary"] == "aborted"
    assert operator.call("agent.wait", {"runId": first, "timeoutMs": 50})["status"] == "timeout"
    assert operator.call("sessions.abort", {"runId": first})["status"] == "aborted"
    assert operator.response(ids[0])["payload"]["summary"] == "aborted"


def test_a_run_may_be_given_less_time_than_its_agent_has(operator: OperatorClient) -> None:
    _, final = operator.run("x", fresh("key"), model="scripted/silent", timeout=1)
    assert final["error"]["details"]["code"] == "RUN_TIMEOUT"


def test_a_run_outlives_its_connection(gateway: LiveGateway, operator: OperatorClient) -> None:
    key, session = fresh("key"), fresh("session")
    with operator_client(gateway) as leaving:
        params = {"message": "x", "idempotencyKey": key, "sessionKey": session, "model": "scripted/slow"}
        leaving.response(leaving.send("agent", params))
    answer = operator.call("agent.wait", {"runId": key, "timeoutMs": 20_000})
    assert (answer["status"], answer["stopReason"]) == ("ok", "stop")
    assert texts(operator.call("chat.history", {"sessionKey": session}))[1][1].endswith("before it ends.")


def test_unknown_run_is_an_error(operator: OperatorClient) -> None:
    assert operator.refusal("agent.wait", {"runId": fresh("none")})["details"]["code"] == "RUN_NOT_FOUND"


def test_the_outcome_of_a_key_survives_a_restart(tmp_path: Path) -> None:
    config, key = scripted_config(), fresh("key")
    with live_gateway(tmp_path, config) as running, operator_client(running) as client:
        _, final = client.run("remember me", key)
        session_id = final["payload"]["result"]["meta"]["agentMeta"]["sessionId"]
    with live_gateway(tmp_path, config) as running, operator_client(running) as client:
        assert client.call("agent.wait", {"runId": key})["status"] == "ok"
        again = client.run("remember me", key)[-1]["payload"]
        assert again["result"]["payloads"] == [{"text": "remember me", "mediaUrl": None}]
        assert again["result"]["meta"]["agentMeta"]["sessionId"] == session_id
        assert len(client.call("chat.history", {"sessionKey": "main"})["messages"]) == 2


def test_chat_send_answers_at_once_and_history_shows_what_is_being_said(operator: OperatorClient) -> None:
    key, session = fresh("key"), fresh("session")
    operator.run("first", fresh("key"), sessionKey=session)
    slow = {"message": "x", "idempotencyKey": key, "sessionKey": session, "model": "scripted/slow"}
    request_id = operator.send("agent", slow)
    operator.event("chat", runId=key, state="delta")
    history = operator.call("chat.history", {"sessionKey": session})
    assert texts(history) == [("user", "first"), ("assistant", "first")]
    assert history["inFlightRun"]["runId"] == key
    assert history["inFlightRun"]["text"].startswith("This")
    sent = operator.call("chat.send", {"sessionKey": session, "message": "next", "idempotencyKey": key + "-2"})
    assert sent == {"runId": key + "-2", "status": "started"}
    operator.response(request_id)
    final = operator.event("chat", runId=key + "-2", state="final")["payload"]
    assert final["message"]["content"] == [{"type": "text", "text": "next"}]
    history = operator.call("chat.history", {"sessionKey": session, "limit": 2})
    assert texts(history) == [("user", "next"), ("assistant", "next")]
    assert "inFlightRun" not in history


def test_conversation_continues_across_both_protocols(operator: OperatorClient, client: httpx.Client) -> None:
    session = fresh("both")
    headers = {"x-openclaw-session-key": session}
    assert text_of(ask(client, "over http", headers=headers)) == "over http"
    operator.run("over the socket", fresh("key"), sessionKey=f"agent:main:{session}")
    assert text_of(ask(client, "over http again", headers=headers)) == "over http again"
    history = operator.call("chat.history", {"sessionKey": session})
    assert [text for _, text in texts(history)][::2] == ["over http", "over the socket", "over http again"]


def test_injected_message_is_stored_and_broadcast(operator: OperatorClient) -> None:
    session = fresh("session")
    operator.run("hi", fresh("key"), sessionKey=session)
    injected = operator.call("chat.inject", {"sessionKey": session, "message": "by the way"})
    assert injected["ok"]
    assert operator.event("chat", runId=injected["messageId"])["payload"]["state"] == "final"
    assert texts(operator.call("chat.history", {"sessionKey": session}))[-1] == ("assistant", "by the way")


def test_sessions_are_listed_got_reset_and_deleted(operator: OperatorClient) -> None:
    session = fresh("listed")
    key = f"agent:beta:{session}"
    operator.run("hello", fresh("key"), sessionKey=key)
    listed = operator.call("sessions.list", {"agentId": "beta", "search": session})
    assert listed["count"] == 1
    row = listed["sessions"][0]
    assert (row["key"], row["agentId"], row["model"], row["derivedTitle"]) == (key, "beta", "echo", "hello")
    got = operator.call("sessions.get", {"key": key})
    assert (got["session"], len(got["messages"])) == (row, 2)
    operator.call("sessions.subscribe")
    assert operator.call("sessions.reset", {"key": key}) == {"ok": True, "key": key}
    assert operator.event("sessions.changed", sessionKey=key)["payload"]["reason"] == "session-reset"
    assert operator.call("chat.history", {"sessionKey": key})["messages"] == []
    operator.run("again", fresh("key"), sessionKey=key)
    assert operator.call("sessions.get", {"key": key})["session"]["sessionId"] != row["sessionId"]
    deleted = {"ok": True, "key": key, "deleted": True, "archived": []}
    assert operator.call("sessions.delete", {"key": key}) == deleted
    assert operator.call("sessions.delete", {"key": key}) == deleted | {"deleted": False}
    assert operator.refusal("sessions.get", {"key": key})["details"]["code"] == "SESSION_NOT_FOUND"


def test_sessions_are_searched_before_they_are_counted(operator: OperatorClient) -> None:
    name = fresh("searched_%")
    for session in (name, fresh("later"), fresh("later")):
        operator.run("hello", fresh("key"), sessionKey=session)

    def found(**params: Any) -> list[str]:
        return [row["key"] for row in operator.call("sessions.list", {"search": name, **params})["sessions"]]

    key = f"agent:main:{name}"
    assert found(limit=1) == found(limit=1, activeMinutes=5) == found(limit=1, agentId="main") == [key]
    assert found(agentId="beta") == found(search=name.replace("%", "")) == found(search=name.replace("_", "x")) == []
    assert found(search=name.upper()) == [key]
    assert found(search="\0") == found(search="x" * 100_000) == []
    assert len(found(search="", limit=2)) == 2


def test_deleting_a_session_ends_what_goes_on_in_it(operator: OperatorClient) -> None:
    session = fresh("busy")
    params = {"message": "x", "idempotencyKey": fresh("key"), "sessionKey": session, "model": "scripted/silent"}
    request_id = operator.send("agent", params)
    operator.event("agent", stream="lifecycle", runId=params["idempotencyKey"])
    assert operator.call("sessions.delete", {"key": session})["ok"]
    assert [frame for frame in operator.frames if frame.get("id") == request_id][-1]["payload"]["summary"] == "aborted"


def test_information_methods_return_agents_and_models(operator: OperatorClient) -> None:
    agents = operator.call("agents.list", {})
    assert (agents["defaultId"], [agent["id"] for agent in agents["agents"]]) == ("main", ["main", "beta"])
    assert operator.call("models.list", {}) == {"models": [{"id": "echo", "name": "echo", "provider": "scripted"}]}
    assert operator.call("health", {})["ok"] is True
    status = operator.call("status", {})
    assert status["connections"] >= 1
    assert status["runCount"] == len(status["runs"])


def test_the_configuration_is_shown_without_its_secrets(tmp_path: Path) -> None:
    config = scripted_config()
    config["models"]["providers"]["other"] = {
        "baseUrl": "https://user:hidden-0@example.com/v1?key=hidden-1",
        "apiKey": "hidden-2",
        "headers": {"X-Team": "hidden-3"},
    }
    config["mcp"] = {"servers": {"one": {"command": "true", "args": ["--key=hidden-4"], "env": {"A": "hidden-5"}}}}
    with live_gateway(tmp_path, config) as running, operator_client(running) as client:
        shown = client.call("config.get", {})
    written = orjson.dumps(shown).decode()
    assert "hidden" not in written
    assert TOKEN not in written
    assert shown["config"]["models"]["providers"]["other"]["apiKey"] == "__OPENCLAW_REDACTED__"
    assert shown["config"]["gateway"]["auth"]["mode"] == "token"
    assert shown["path"].endswith("openclaw.json")


def test_scopes_are_checked_for_each_method(gateway: LiveGateway) -> None:
    with operator_client(gateway, scopes=["operator.read"]) as reader:
        assert reader.call("sessions.list", {})["count"] >= 0
        error = reader.refusal("agent", {"message": "x", "idempotencyKey": "k"})
    assert error["code"] == "FORBIDDEN"
    details = {"code": "MISSING_SCOPE", "missingScope": "operator.write", "requiredScopes": ["operator.write"]}
    assert error["details"] == details
    with operator_client(gateway, scopes=["operator.write"]) as writer:
        assert writer.run("hi", fresh("key"))[1]["ok"]
        assert writer.call("health")["ok"]
        assert writer.refusal("sessions.delete", {"key": "x"})["details"]["missingScope"] == "operator.admin"
    with operator_client(gateway, scopes=[]) as nobody:
        assert nobody.refusal("health")["code"] == "FORBIDDEN"


@pytest.mark.parametrize(
    ("method", "params", "detail", "param"),
    [
        ("agent", {"message": "x"}, "MISSING_REQUIRED_PARAMETER", "idempotencyKey"),
        ("agent", {"message": 1, "idempotencyKey": "k"}, "INVALID_TYPE", "message"),
        ("agent", {"message": " ", "idempotencyKey": "k"}, "MISSING_REQUIRED_PARAMETER", "message"),
        ("agent", {"message": "x", "idempotencyKey": "a\nb"}, "INVALID_VALUE", "idempotencyKey"),
        ("agent", {"message": "x", "idempotencyKey": "k", "agentId": "none"}, "UNKNOWN_AGENT_ID", "agentId"),
        ("agent", {"message": "x", "idempotencyKey": "k", "model": "nowhere/x"}, "MODEL_NOT_FOUND", "model"),
        ("agent", {"message": "x", "idempotencyKey": "k", "cwd": "/"}, "UNSUPPORTED_PARAMETER", "cwd"),
        ("agent", {"message": "x", "idempotencyKey": "k", "attachments": [1]}, "UNSUPPORTED_PARAMETER", "attachments"),
        ("chat.send", {"message": "x", "idempotencyKey": "k", "sessionKey": "cron:1"}, "INVALID_VALUE", "sessionKey"),
        ("chat.history", {"sessionKey": "x", "limit": 5000}, "INVALID_VALUE", "limit"),
        (
            "chat.history",
            {"sessionKey": "agent:beta:x", "agentId": "main"},
            "INVALID_VALUE",
            "sessionKey",
        ),
        ("no.such.method", {}, "UNKNOWN_METHOD", "method"),
    ],
)
def test_invalid_parameter_is_reported_by_name(
    operator: OperatorClient, method: str, params: dict[str, Any], detail: str, param: str
) -> None:
    error = operator.refusal(method, params)
    assert (error["code"], error["details"]["code"], error["details"]["param"]) == ("INVALID_REQUEST", detail, param)
