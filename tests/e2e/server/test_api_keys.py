"""Named keys: every operation of the contract and of the WebSocket, tried with every kind of key."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import websockets
from support.api_keys import create_key, open_keys
from support.chat import ask, error_of, text_of
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.operator_client import connect_params, operator_client, raw_client
from support.polling import until

from service.api.http.contract import load_contract
from service.core.rate_limits import RateLimits

SILENT = {"x-openclaw-model": "scripted/silent"}
ADMINISTRATORS = ("token", "admin")


@dataclass(frozen=True)
class Keys:
    """A gateway and its keys by kind: `owner` makes things, `stranger` has the same scope."""

    gateway: LiveGateway
    texts: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)

    def client(self, kind: str) -> httpx.Client:
        return self.gateway.client(self.texts[kind])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    config = scripted_config()
    endpoints = ("chatCompletions", "responses", "embeddings", "tools", "metrics")
    config["gateway"]["http"]["endpoints"] = {name: {"enabled": True} for name in endpoints}
    config["gateway"]["http"]["models"] = {"gpt-4o": "openclaw/beta", "gpt-4.1": "openclaw/main"}
    config["embeddings"] = {"model": "scripted/embed"}
    config["tools"] = {"sessions": {"visibility": "all"}}
    with live_gateway(tmp_path_factory.mktemp("gateway"), config) as gateway:
        state, made = gateway.state_dir, {}
        for kind in ("chat", "read", "metrics", "admin"):
            made[kind] = create_key(state, kind)
        made["owner"], made["stranger"] = create_key(state), create_key(state)
        made["expired"] = create_key(state, expires_in=-1)
        made["beta"] = create_key(state, agents=["beta"])
        made["echo"] = create_key(state, models=["scripted/echo"])
        made["count"] = create_key(state, models=["scripted/count-3"])
        made["revoked"] = create_key(state)
        with open_keys(state) as stored:
            stored.revoke(made["revoked"][1])
        made["exhausted"] = create_key(state, limits=RateLimits(1))
        with gateway.client(made["exhausted"][0]) as client:
            run(client)
        texts = {kind: text for kind, (text, _) in made.items()} | {"token": TOKEN}
        texts["unknown"] = f"ocgw_{'0' * 12}_{'x' * 43}"
        texts["wrong"] = texts["owner"][:-1] + ("0" if texts["owner"][-1] != "0" else "1")
        yield Keys(gateway, texts, {kind: key_id for kind, (_, key_id) in made.items()})


# What the operations work on; each function makes it with the client of the owner and returns its path.


def session(owner: httpx.Client) -> str:
    name = f"s-{uuid.uuid4()}"
    headers = ask(owner, "hello", headers={"x-openclaw-session-key": name}).raise_for_status().headers
    return f"/v1/sessions/{headers['x-openclaw-session-key']}"


def run(owner: httpx.Client) -> str:
    return str(owner.post("/v1/runs", json={"input": "hello"}).raise_for_status().headers["Location"])


def running(owner: httpx.Client) -> str:
    return str(owner.post("/v1/runs", json={"input": "x", "model": "scripted/silent"}).headers["Location"])


def stored_response(owner: httpx.Client) -> str:
    return f"/v1/responses/{owner.post('/v1/responses', json={'input': 'hello'}).raise_for_status().json()['id']}"


def nothing(owner: httpx.Client) -> str:
    del owner
    return ""


@dataclass(frozen=True)
class Row:
    """An operation: the scopes that suffice, its request, and the status for the owner and for others."""

    scopes: str
    method: str
    path: str
    body: Any = None
    ok: int = 200
    foreign: int = 0
    make: Callable[[httpx.Client], str] = nothing
    is_limited: bool = False

    def send(self, client: httpx.Client, made: str) -> httpx.Response:
        return client.request(self.method, made + self.path, json=self.body)


MESSAGES = {"messages": [{"role": "user", "content": "hello"}]}
ROWS = {
    "create_chat_completion": Row("chat", "POST", "/v1/chat/completions", MESSAGES, is_limited=True),
    "create_response": Row("chat", "POST", "/v1/responses", {"input": "hello"}, is_limited=True),
    "create_embedding": Row("chat", "POST", "/v1/embeddings", {"input": "hello"}, is_limited=True),
    "create_run": Row("chat", "POST", "/v1/runs", {"input": "hello"}, ok=202, is_limited=True),
    "list_models": Row("chat read", "GET", "/v1/models"),
    "get_model": Row("chat read", "GET", "/v1/models/openclaw"),
    "list_tools": Row("read", "GET", "/v1/tools"),
    "create_tool_call": Row("write", "POST", "/tools/invoke", {"tool": "sessions_list"}, is_limited=True),
    "list_sessions": Row("read", "GET", "/v1/sessions"),
    "get_session": Row("read", "GET", "", foreign=404, make=session),
    "delete_session": Row("write", "DELETE", "", foreign=404, make=session),
    "create_fork": Row("write", "POST", "/fork", {}, ok=201, foreign=404, make=session),
    "get_response": Row("read", "GET", "", foreign=404, make=stored_response),
    "delete_response": Row("write", "DELETE", "", foreign=404, make=stored_response),
    "cancel_response": Row("write", "POST", "/cancel", foreign=404, make=stored_response),
    "list_input_items": Row("read", "GET", "/input_items", foreign=404, make=stored_response),
    "list_runs": Row("read", "GET", "/v1/runs"),
    "get_run": Row("read", "GET", "", foreign=404, make=run),
    "list_run_events": Row("read", "GET", "/events", foreign=404, make=run),
    "get_chat_stream": Row("read", "GET", "/chat-stream", foreign=404, make=run),
    "cancel_run": Row("write", "POST", "/cancel", foreign=404, make=running),
    "list_usage": Row("read", "GET", "/v1/usage"),
    "list_approvals": Row("admin", "GET", "/v1/approvals"),
    "decide_approval": Row("admin", "POST", "/v1/approvals/none", {"decision": "deny"}, ok=404),
    "get_metrics": Row("metrics", "GET", "/metrics"),
}
INVALID = ("unknown", "wrong", "expired", "revoked")


def test_every_operation_has_a_row() -> None:
    operations = [one for item in load_contract(authenticated=True)["paths"].values() for one in item.items()]
    secured = {one["operationId"] for method, one in operations if method != "head" and one.get("security") != []}
    assert secured == set(ROWS)
    limited = {one["operationId"] for method, one in operations if "x-limited" in one}
    assert limited == {name for name, row in ROWS.items() if row.is_limited}


def expected(row: Row, kind: str) -> int:
    if kind in ADMINISTRATORS:
        return row.ok
    if kind == "exhausted" and row.is_limited:
        return 429
    if kind in ("owner", "stranger", "exhausted"):
        allowed = row.scopes not in ("metrics", "admin")
        return 403 if not allowed else row.ok if kind == "owner" else row.foreign or row.ok
    return (row.foreign or row.ok) if kind in row.scopes.split() else 403


@pytest.mark.parametrize("operation", ROWS)
def test_an_operation_serves_those_who_may(keys: Keys, operation: str) -> None:
    row = ROWS[operation]
    with keys.client("owner") as owner:
        made = row.make(owner)
        for kind in ("chat", "read", "metrics", "stranger", "exhausted", "owner", *ADMINISTRATORS):
            with keys.client(kind) as client:
                response = row.send(client, made)
            assert response.status_code == expected(row, kind), (kind, response.text)
            if response.status_code in (403, 429):
                codes = {403: "missing_scope", 429: "rate_limit_exceeded"}
                assert error_of(response)[1] == codes[response.status_code]
            if response.is_success and row.method != "GET":
                made = row.make(owner)  # it may be gone
        refusals = []
        for kind in INVALID:
            with keys.client(kind) as client:
                response = row.send(client, made)
            assert error_of(response) == (401, "invalid_api_key", "authorization"), kind
            refusals.append(response.json())
        assert refusals == [refusals[0]] * len(INVALID)


def test_lists_have_what_the_key_made(keys: Keys) -> None:
    with keys.client("owner") as owner, keys.client("stranger") as stranger, keys.client("token") as everybody:
        key, run_id = session(owner).removeprefix("/v1/sessions/"), run(owner).removeprefix("/v1/runs/")
        mine = f":key:{keys.ids['owner']}:"
        for path, field_name, wanted in (("/v1/sessions", "key", key), ("/v1/runs", "id", run_id)):
            listed = owner.get(path, params={"limit": 100}).json()["data"]
            assert wanted in {one[field_name] for one in listed}
            assert all(mine in one.get("session_key", one.get("key")) for one in listed)
            assert wanted not in {one[field_name] for one in stranger.get(path, params={"limit": 100}).json()["data"]}
            assert wanted in {one[field_name] for one in everybody.get(path, params={"limit": 100}).json()["data"]}
        assert stranger.get("/v1/runs", params={"session_key": key}).json()["data"] == []
        said = stranger.post("/tools/invoke", json={"tool": "sessions_list", "args": {"limit": 100}}).text
        assert mine not in said
        refused = stranger.post("/tools/invoke", json={"tool": "sessions_history", "args": {"session_key": key}})
        assert error_of(refused)[1] == "tool_failed"


def test_two_keys_do_not_meet(keys: Keys) -> None:
    """The same user, session key and idempotency key are three different ones for three callers."""
    found = []
    for kind in ("owner", "stranger", "token"):
        with keys.client(kind) as client:
            by_user = ask(client, f"I am {kind}", user="alice")
            by_key = ask(client, f"I am {kind}", headers={"x-openclaw-session-key": "agent:main:shared"})
            once = {"Idempotency-Key": "the-same"}
            first, again = (ask(client, f"I am {kind}", headers=once) for _ in range(2))
            assert [text_of(one) for one in (by_user, by_key, first, again)] == [f"I am {kind}"] * 4
            assert "idempotency-replayed" not in first.headers
            assert again.headers["idempotency-replayed"] == "true"
            vectors = client.post("/v1/embeddings", json={"input": kind}, headers={"Idempotency-Key": "vectors"})
            assert (vectors.status_code, "idempotency-replayed" in vectors.headers) == (200, False)
            sessions = [one.headers["x-openclaw-session-key"] for one in (by_user, by_key, first)]
            # What an answer says can be sent back.
            for key in sessions:
                sent_back = ask(client, "again", headers={"x-openclaw-session-key": key})
                assert sent_back.headers["x-openclaw-session-key"] == key
            short = client.get("/v1/sessions/shared").json()
            assert (short["key"], short["message_count"]) == (sessions[1], 4)
            found += sessions
    assert len(set(found)) == 9


def test_foreign_responses_are_unknown(keys: Keys) -> None:
    with keys.client("owner") as owner, keys.client("stranger") as stranger:
        made = owner.post("/v1/responses", json={"input": "hello"}).json()
        follow = {"input": "and?", "previous_response_id": made["id"]}
        assert owner.post("/v1/responses", json=follow).status_code == 200
        assert error_of(stranger.post("/v1/responses", json=follow))[:2] == (404, "previous_response_not_found")
        reference = {"input": [{"type": "item_reference", "id": made["output"][0]["id"]}]}
        assert error_of(stranger.post("/v1/responses", json=reference))[:2] == (400, "invalid_value")


def test_a_key_knows_only_its_agents_and_models(keys: Keys) -> None:
    def listed(kind: str) -> list[str]:
        with keys.client(kind) as client:
            return [one["id"] for one in client.get("/v1/models").json()["data"]]

    assert listed("owner") == ["openclaw", "openclaw/default", "openclaw/main", "openclaw/beta", "gpt-4o", "gpt-4.1"]
    assert listed("beta") == ["openclaw", "openclaw/default", "openclaw/beta", "gpt-4o"]
    assert listed("echo") == listed("owner")
    assert listed("count") == []
    with keys.client("beta") as client:
        assert ask(client, "hi", model="openclaw").headers["x-openclaw-session-key"].startswith("agent:beta:key:")
        unusable, unknown = (ask(client, "hi", model=f"openclaw/{name}") for name in ("main", "nobody"))
        assert (unusable.status_code, unknown.status_code) == (404, 404)
        assert unusable.text.replace("/main", "/nobody") == unknown.text
        assert error_of(client.get("/v1/models/gpt-4.1"))[:2] == (404, "model_not_found")
        assert error_of(client.get("/v1/tools", params={"agent": "main"}))[:2] == (404, "model_not_found")
        agents = client.post("/tools/invoke", json={"tool": "agents_list"})
        assert "main" not in agents.text
    with keys.client("echo") as client:
        assert text_of(ask(client, "hi")) == "hi"
        assert error_of(ask(client, "hi", headers={"x-openclaw-model": "scripted/count-3"}))[1] == "model_not_found"
        assert error_of(client.post("/v1/embeddings", json={"input": "x"}))[:2] == (404, "model_not_found")
    with keys.client("count") as client:
        assert error_of(ask(client, "hi"))[:2] == (404, "model_not_found")
        assert text_of(ask(client, "hi", headers={"x-openclaw-model": "scripted/count-3"})) == "1 2 3 "


def test_keys_are_rotated_and_revoked_while_in_use(keys: Keys) -> None:
    state = keys.gateway.state_dir
    old, key_id = create_key(state)

    def status_of(text: str) -> int:
        with keys.gateway.client(text) as client:
            return client.get("/v1/models").status_code

    assert status_of(old) == 200
    with open_keys(state) as stored:
        with operator_client(keys.gateway, auth={"token": old}) as client:
            new = stored.rotate(key_id, grace_seconds=1)
            assert status_of(old) == 200
            until(lambda: status_of(new) == 200 and status_of(old) == 401)
            with pytest.raises(websockets.ConnectionClosed):
                client.receive_until(lambda _: False)
        with operator_client(keys.gateway, auth={"token": new}) as client:
            assert client.call("health")["ok"]
            stored.revoke(key_id)
            with suppress(TimeoutError), pytest.raises(websockets.ConnectionClosed):
                until(lambda: client.receive() is None)
            assert status_of(new) == 401
        until(lambda: next(one for one in stored.list() if one.id == keys.ids["owner"]).last_used_at_ms)


def test_no_secret_is_written(keys: Keys) -> None:
    secrets = [
        text.rpartition("_")[2].encode() for kind, text in keys.texts.items() if kind not in ("token", "unknown")
    ]
    written = keys.gateway.output_path.read_bytes()
    assert f"key={keys.ids['owner']}".encode() in written
    written += b"".join(path.read_bytes() for path in keys.gateway.state_dir.rglob("*") if path.is_file())
    assert [secret for secret in secrets if secret in written] == []


# The WebSocket: each method, the scope that it needs, its parameters, and the error code for a stranger.

CHAT_PARAMS = {"sessionKey": "ws", "message": "hello", "idempotencyKey": "the-same"}
METHODS: dict[str, tuple[str, Any]] = {
    "agent": ("write", {"message": "hello", "idempotencyKey": "an-id", "sessionKey": "ws"}),
    "agent.wait": ("write", {"runId": "an-id"}),
    "chat.send": ("write", CHAT_PARAMS),
    "chat.abort": ("write", {"sessionKey": "ws"}),
    "chat.history": ("read", {"sessionKey": "ws"}),
    "chat.inject": ("admin", {"sessionKey": "ws", "message": "x"}),
    "sessions.list": ("read", {}),
    "sessions.get": ("read", {"key": "ws"}),
    "sessions.abort": ("write", {"key": "ws"}),
    "sessions.reset": ("admin", {"key": "ws"}),
    "sessions.delete": ("admin", {"key": "ws"}),
    "sessions.subscribe": ("read", {}),
    "sessions.unsubscribe": ("read", {}),
    "exec.approval.list": ("admin", {}),
    "exec.approval.get": ("admin", {"id": "x"}),
    "exec.approval.resolve": ("admin", {"id": "x", "decision": "deny"}),
    "exec.approval.waitDecision": ("admin", {"id": "x", "timeoutMs": 1}),
    "exec.approval.request": ("admin", {"command": "x", "timeoutMs": 1}),
    "agents.list": ("read", {}),
    "models.list": ("read", {}),
    "config.get": ("admin", {}),
    "health": ("read", {}),
    "status": ("read", {}),
}
WS_SCOPES = {"chat": "", "metrics": "", "read": "read", "owner": "read write", "admin": "read write admin"}


@pytest.mark.parametrize("kind", WS_SCOPES)
def test_a_method_serves_those_who_may(keys: Keys, kind: str) -> None:
    granted = WS_SCOPES[kind].split()
    with operator_client(keys.gateway, auth={"token": keys.texts[kind]}) as client:
        hello = next(one for one in client.frames if one["type"] == "res")["payload"]
        assert set(hello["features"]["methods"]) == set(METHODS)
        assert {one.removeprefix("operator.") for one in hello["auth"]["scopes"]} - {"approvals"} == set(granted)
        for method, (scope, params) in METHODS.items():
            response = client.response(client.send(method, params))
            missing = response.get("error", {}).get("details", {}).get("code") == "MISSING_SCOPE"
            assert missing == (scope not in granted), (method, response)


def test_websocket_clients_share_nothing(keys: Keys) -> None:
    """Two keys use the same session key and run id; events come to the key's own clients and to administrators."""

    def connected(kind: str) -> Any:
        return operator_client(keys.gateway, auth={"token": keys.texts[kind]})

    run_id = f"run-{uuid.uuid4()}"
    with connected("owner") as owner, connected("stranger") as stranger, connected("token") as everybody:
        for client in (owner, stranger, everybody):
            client.call("sessions.subscribe")
        ends = {}
        for kind, client in (("owner", owner), ("stranger", stranger)):
            accepted, done = client.run(f"I am {kind}", run_id, sessionKey="agent:main:ws-shared")
            assert (accepted["payload"]["runId"], done["payload"]["runId"]) == (run_id, run_id)
            assert done["payload"]["result"]["payloads"][0]["text"] == f"I am {kind}"
            assert client.call("agent.wait", {"runId": run_id})["status"] == "ok"
            ends[kind] = client.event("chat", state="final", runId=run_id)["payload"]
            assert f":key:{keys.ids[kind]}:" in ends[kind]["sessionKey"]
        for kind in ends:
            everybody.event("chat", state="final", runId=f"key:{keys.ids[kind]}:{run_id}")
        stranger.call("health")
        heard = [frame["payload"] for frame in stranger.frames if frame["type"] == "event"]
        assert not [one for one in heard if keys.ids["owner"] in str(one)]
        key = ends["owner"]["sessionKey"]
        assert stranger.call("chat.history", {"sessionKey": key})["messages"] == []
        assert stranger.refusal("sessions.get", {"key": key})["details"]["code"] == "SESSION_NOT_FOUND"
        foreign = f"key:{keys.ids['owner']}:{run_id}"
        assert stranger.refusal("agent.wait", {"runId": foreign})["details"]["code"] == "RUN_NOT_FOUND"
        assert stranger.refusal("sessions.abort", {"runId": foreign})["details"]["code"] == "RUN_NOT_FOUND"
        assert keys.ids["owner"] not in str(stranger.call("sessions.list"))
        assert len(owner.call("chat.history", {"sessionKey": "ws-shared"})["messages"]) == 2


def test_invalid_keys_are_refused_a_connection(keys: Keys) -> None:
    for kind in INVALID:
        with raw_client(keys.gateway) as client:
            client.receive()
            error = client.refusal("connect", connect_params(keys.texts[kind]))
            assert error["details"]["code"] == "AUTH_TOKEN_MISMATCH"
