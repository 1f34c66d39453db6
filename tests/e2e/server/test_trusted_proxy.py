"""Users whom a proxy names: who is believed, whose data is whose, and what a hostile header does."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
import pytest
import websockets
from support.api_keys import create_key
from support.chat import ask, error_of, text_of
from support.live import LiveGateway, live_gateway, scripted_config
from support.operator_client import OperatorClient, connect_params, raw_client
from support.polling import until

USER, SEAL = "x-auth-request-email", "x-proxy-seal"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    config = scripted_config(trustedProxies=["127.0.0.1"], controlUi={"allowedOrigins": ["https://ui.example.com"]})
    users = ["anna", "ben", "ünal", "limited", "leaving"]
    proxy = {"userHeader": "X-Auth-Request-Email", "requiredHeaders": [SEAL], "allowUsers": users}
    config["gateway"]["auth"] = {"mode": "trusted-proxy", "trustedProxy": proxy}
    limits = {"perUser": {"requestsPerMinute": 1000}, "users": {"limited": {"requestsPerMinute": 2}}}
    config["gateway"]["limits"] = limits
    with live_gateway(tmp_path_factory.mktemp("gateway"), config) as live:
        yield live


def client(gateway: LiveGateway, user: str | bytes | None, **headers: str) -> httpx.Client:
    """The proxy, with a request of `user`."""
    made = gateway.client(None)
    name = [] if user is None else [(USER.encode(), user.encode() if isinstance(user, str) else user)]
    made.headers = httpx.Headers([(SEAL.encode(), b"1"), *name])
    made.headers.update(headers)
    return made


@contextmanager
def connected(gateway: LiveGateway, user: str, **changes: Any) -> Iterator[OperatorClient]:
    with raw_client(gateway, headers={USER: user, SEAL: "1"}) as one:
        one.receive()
        assert one.call("connect", connect_params(None, **changes))["type"] == "hello-ok"
        yield one


def test_users_see_only_their_own(gateway: LiveGateway) -> None:
    sessions = {}
    for user in ("anna", "ben", "ünal"):
        with client(gateway, user) as one:
            answer = ask(one, f"I am {user}", user="alice")
            assert text_of(answer) == f"I am {user}"
            assert answer.headers["x-ratelimit-limit-requests"] == "1000"
            key = sessions[user] = answer.headers["x-openclaw-session-key"]
            assert [one["key"] for one in one.get("/v1/sessions").json()["data"]] == [key]
    assert len(set(sessions.values())) == 3
    with client(gateway, "anna") as anna, client(gateway, "ben") as ben:
        assert anna.get(f"/v1/sessions/{sessions['anna']}").status_code == 200
        assert error_of(ben.get(f"/v1/sessions/{sessions['anna']}"))[:2] == (404, "session_not_found")
        assert ben.delete(f"/v1/sessions/{sessions['anna']}").status_code == 404
        assert error_of(anna.get("/v1/approvals"))[:2] == (403, "missing_scope")


def test_nobody_but_the_proxy_names_users(gateway: LiveGateway) -> None:
    stranger = httpx.HTTPTransport(local_address="127.0.0.2")
    with gateway.client(None, transport=stranger) as one:
        one.headers.update({SEAL: "1", USER: "anna"})
        assert error_of(one.get("/v1/sessions")) == (403, "untrusted_proxy_headers", USER)
        one.headers["X-Forwarded-For"] = "127.0.0.1"
        assert error_of(one.get("/v1/sessions"))[:2] == (403, "untrusted_proxy_headers")
    refused = raw_client(gateway, headers={SEAL: "1", USER: "anna"}, source_address=("127.0.0.2", 0))
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught, refused:
        pass
    assert caught.value.response.status_code == 403
    with client(gateway, None, Authorization="Bearer anything") as nobody:
        assert error_of(nobody.get("/v1/sessions"))[:2] == (401, "invalid_api_key")
        del nobody.headers["authorization"]
        assert error_of(nobody.get("/v1/sessions"))[:2] == (401, "missing_credentials")
        nobody.headers["X_Auth_Request_Email"] = "anna"
        assert nobody.get("/v1/sessions").status_code == 401
    with gateway.client(None) as unsealed:
        unsealed.headers[USER] = "anna"
        assert error_of(unsealed.get("/v1/sessions")) == (403, "untrusted_proxy_headers", SEAL)


HOSTILE: list[str | bytes] = [
    "anna, ben",
    "mallory\x1b[31m",
    b"\xff\xfe",
    "x" * 300,
    "an\u200dna",
    "anna\u2028ben",
]


def test_a_hostile_name_is_refused_and_neither_logged_nor_repeated(gateway: LiveGateway) -> None:
    for name in HOSTILE:
        with client(gateway, name) as one:
            response = one.get("/v1/sessions")
        assert response.status_code in (400, 403), name
        assert response.json()["error"]["code"] in ("untrusted_proxy_headers", "malformed_request"), name
        assert "anna" not in response.text
    with client(gateway, "mallory-the-hostile") as one:
        assert error_of(one.get("/v1/sessions")) == (403, "user_not_allowed", USER)
    assert "mallory" not in gateway.output
    assert "\x1b" not in gateway.output


def test_a_user_has_the_limits_of_the_configuration(gateway: LiveGateway) -> None:
    with client(gateway, "limited") as one:
        assert [ask(one, "hello").status_code for _ in range(3)] == [200, 200, 429]
    with client(gateway, "anna") as other:
        assert ask(other, "hello").status_code == 200


def test_usage_has_the_names_of_users(gateway: LiveGateway) -> None:
    with client(gateway, "ünal") as one:
        assert ask(one, "hello", user="somebody else").status_code == 200
    admin, _ = create_key(gateway.state_dir, "admin")
    for program in (client(gateway, "ünal"), gateway.client(admin)):
        with program:
            named = [
                next(
                    row
                    for row in program.get("/v1/usage", params={"by": by}).json()["data"]
                    if row["key_name"] == "ünal"
                )
                for by in ("key", "user")
            ]
        assert named[0]["key"] == named[1]["key"]
        assert named[0]["key"].startswith("user:")
        assert named[0]["usage"] == named[1]["usage"]
        assert [row["user"] for row in named] == [None, "ünal"]


def test_foreign_pages_do_not_act_for_a_user(gateway: LiveGateway) -> None:
    with client(gateway, "anna", Origin="https://evil.example.com") as page:
        assert error_of(page.get("/v1/sessions"))[:2] == (403, "origin_not_allowed")
        page.headers["origin"] = "https://ui.example.com"
        assert page.get("/v1/sessions").status_code == 200


def test_keys_are_used_beside_users(gateway: LiveGateway) -> None:
    admin, _ = create_key(gateway.state_dir, "admin")
    with gateway.client(admin) as program:
        assert program.get("/v1/approvals").status_code == 200
    with client(gateway, "anna", Authorization=f"Bearer {admin}") as one:
        assert one.get("/v1/approvals").status_code == 200
    wrong = admin[:-1] + ("0" if admin[-1] != "0" else "1")
    with client(gateway, "anna", Authorization=f"Bearer {wrong}") as one:
        assert error_of(one.get("/v1/sessions"))[:2] == (401, "invalid_api_key")


def test_websockets_are_of_the_user(gateway: LiveGateway) -> None:
    with connected(gateway, "anna") as anna, connected(gateway, "ben") as ben:
        for one in (anna, ben):
            hello = next(frame for frame in one.frames if frame["type"] == "res")["payload"]
            assert set(hello["auth"]["scopes"]) == {"operator.read", "operator.write"}
        accepted, done = anna.run("secret", str(uuid.uuid4()), sessionKey="shared")
        assert done["payload"]["status"] == "ok"
        assert ben.call("chat.history", {"sessionKey": "shared"})["messages"] == []
        key = accepted["payload"]["sessionKey"]
        assert ben.refusal("sessions.get", {"key": key})["details"]["code"] == "SESSION_NOT_FOUND"
    with raw_client(gateway) as nobody:
        nobody.receive()
        assert nobody.refusal("connect", connect_params(None))["details"]["code"] == "AUTH_TOKEN_MISSING"


def test_a_user_that_is_not_allowed_any_more_is_disconnected(gateway: LiveGateway) -> None:
    path = gateway.directory / "openclaw.json"
    with connected(gateway, "leaving") as one:
        config = orjson.loads(path.read_bytes())
        config["gateway"]["auth"]["trustedProxy"]["allowUsers"].remove("leaving")
        path.write_bytes(orjson.dumps(config))
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            one.receive_until(lambda _: False)
    with client(gateway, "leaving") as again:
        until(lambda: again.get("/v1/sessions").status_code == 403)
