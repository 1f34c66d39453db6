"""The WebSocket handshake: upgrade, challenge, `connect`, and every refusal."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.conformance import Conformance
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.operator_client import OperatorClient, connect_params, operator_client, raw_client
from support.polling import until
from websockets.exceptions import ConnectionClosed

ORIGIN = "https://ui.example.com"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway that limits attempts from loopback, too, knows a page and trusts no proxy."""
    config = scripted_config(controlUi={"allowedOrigins": [ORIGIN]})
    config["gateway"]["auth"]["rateLimit"] = {"maxAttempts": 3, "lockoutMs": 5000, "exemptLoopback": False}
    with live_gateway(tmp_path_factory.mktemp("guarded"), config) as running:
        yield running


def upgrade(gateway: LiveGateway, headers: Mapping[str, str], *, path: str = "/", method: str = "GET") -> Any:
    """Ask for an upgrade by hand: the status, the headers and the decoded body of the answer."""
    host, port = gateway.address
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        body = b"" if response.status == 101 else response.read()
        return response.status, response.headers, orjson.loads(body or b"null")
    finally:
        connection.close()


def closed(client: OperatorClient) -> tuple[int, str]:
    """Wait for the close: its code and reason."""
    with pytest.raises(ConnectionClosed) as caught:
        client.receive_until(lambda _: False)
    received = caught.value.rcvd
    assert received is not None
    return received.code, received.reason


@pytest.mark.parametrize("path", ["/", "/ws", "/v1/chat/completions", "/healthz", "/no/such/path?x=1"])
def test_any_path_is_upgraded(gateway: LiveGateway, path: str) -> None:
    with raw_client(gateway, path) as client:
        challenge = client.receive()
        assert challenge["event"] == "connect.challenge"
        assert set(challenge["payload"]) == {"nonce", "ts"}


def test_the_answer_to_an_upgrade_has_the_common_headers_and_no_extension(gateway: LiveGateway) -> None:
    offered = {"Sec-WebSocket-Extensions": "permessage-deflate", "Sec-WebSocket-Protocol": "x"}
    status, headers, _ = upgrade(gateway, UPGRADE | offered)
    assert status == 101
    assert headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert headers["x-request-id"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Sec-WebSocket-Extensions" not in headers
    assert "Sec-WebSocket-Protocol" not in headers


def test_hello_lists_features(gateway: LiveGateway) -> None:
    with raw_client(gateway) as client:
        client.receive()
        hello = client.call("connect", connect_params(scopes=["operator.read", "operator.unheard-of"]))
    assert hello["protocol"] == 4
    assert hello["auth"] == {"role": "operator", "scopes": ["operator.read"]}
    policy = {"maxPayload": 26214400, "maxBufferedBytes": 52428800, "tickIntervalMs": 30000}
    assert hello["policy"] == policy
    assert {"agent", "agent.wait", "chat.send", "sessions.list", "config.get"} <= set(hello["features"]["methods"])
    assert {"agent", "chat", "tick"} <= set(hello["features"]["events"])
    assert hello["snapshot"]["sessionDefaults"]["mainSessionKey"] == "agent:main:main"


@pytest.mark.parametrize(
    ("changes", "detail", "code"),
    [
        ({"auth": {"token": "wrong"}}, "AUTH_TOKEN_MISMATCH", 1008),
        ({"auth": {}}, "AUTH_TOKEN_MISSING", 1008),
        ({"auth": {"password": TOKEN}}, "AUTH_TOKEN_MISSING", 1008),
        ({"minProtocol": 1, "maxProtocol": 3}, "PROTOCOL_MISMATCH", 1002),
        ({"minProtocol": 5, "maxProtocol": 9}, "PROTOCOL_MISMATCH", 1002),
        ({"role": "node"}, "INVALID_VALUE", 1008),
        ({"client": {"id": "x"}}, "MISSING_REQUIRED_PARAMETER", 1008),
        ({"scopes": "operator.admin"}, "INVALID_TYPE", 1008),
    ],
)
def test_refused_client_gets_reason_and_close(
    gateway: LiveGateway, changes: dict[str, Any], detail: str, code: int
) -> None:
    with raw_client(gateway) as client:
        client.receive()
        error = client.refusal("connect", connect_params(**changes))
        assert (error["code"], error["details"]["code"]) == ("INVALID_REQUEST", detail)
        closed_with, reason = closed(client)
        assert closed_with == code
        assert reason
        assert TOKEN not in orjson.dumps(client.frames).decode()


@pytest.mark.parametrize(
    ("message", "frame_id"),
    [
        ("not json", "invalid"),
        (b"\x00\x01", "invalid"),
        ('{"type": "req", "id": "7", "method": "health"}', "7"),
        ('{"type": "event", "id": "8", "method": "connect"}', "8"),
        ("[]", "invalid"),
    ],
)
def test_first_request_must_be_connect(gateway: LiveGateway, message: str | bytes, frame_id: str) -> None:
    with raw_client(gateway) as client:
        client.receive()
        client.connection.send(message)
        response = client.receive()
        assert (response["id"], response["ok"], response["error"]["code"]) == (frame_id, False, "INVALID_REQUEST")
        assert closed(client)[0] == 1008


def test_before_connect_a_message_has_at_most_64_kib(gateway: LiveGateway) -> None:
    with raw_client(gateway) as client:
        client.receive()
        client.connection.send("x" * (64 * 1024 + 1))
        assert closed(client)[0] == 1009


def test_after_connect_a_message_has_at_most_25_mib(gateway: LiveGateway) -> None:
    with operator_client(gateway) as client:
        with suppress(ConnectionClosed):  # it may be closed before all of it is sent
            client.connection.send("x" * (25 * 1024 * 1024 + 1))
        assert closed(client)[0] == 1009


def test_silent_client_is_closed(gateway: LiveGateway) -> None:
    with raw_client(gateway) as client:
        client.receive()
        began = time.monotonic()
        assert closed(client)[0] == 1008
        assert time.monotonic() - began > 8


def test_a_foreign_origin_is_refused(guarded: LiveGateway) -> None:
    for origin in ("https://evil.example.com", "null", ORIGIN + ".evil.example.com", "http://ui.example.com"):
        status, headers, body = upgrade(guarded, UPGRADE | {"Origin": origin}, path="/healthz")
        assert (status, body["error"]["code"]) == (403, "origin_not_allowed")
        assert "gateway.controlUi.allowedOrigins" in body["error"]["message"]
        assert headers["x-request-id"]
        Conformance().check_error(body)


def test_a_listed_origin_and_the_gateways_own_are_let_in(guarded: LiveGateway) -> None:
    host, port = guarded.address
    for origin in (ORIGIN, ORIGIN.upper(), f"http://{host}:{port}"):
        with raw_client(guarded, headers={"Origin": origin}) as client:
            assert client.receive()["event"] == "connect.challenge"


def test_http_sends_no_cors_headers(guarded: LiveGateway) -> None:
    with guarded.client() as client:
        answer = client.get("/healthz", headers={"Origin": ORIGIN})
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"Sec-WebSocket-Version": "12"}, 400, "malformed_request"),
        ({"Sec-WebSocket-Key": "short"}, 400, "malformed_request"),
        ({"Connection": "close"}, 400, "malformed_request"),
        ({"Content-Length": "3"}, 400, "malformed_request"),
        ({"X-Forwarded-For": "192.0.2.1"}, 403, "untrusted_proxy_headers"),
    ],
)
def test_malformed_upgrade_gets_error_envelope(
    gateway: LiveGateway, change: dict[str, str], status: int, code: str
) -> None:
    got, _, body = upgrade(gateway, UPGRADE | change)
    assert (got, body["error"]["code"]) == (status, code)
    Conformance().check_error(body)


@pytest.mark.parametrize(("version", "named"), [("12", "13"), ("", "13"), ("13, 8", "13"), ("13", None)])
def test_upgrade_to_another_version_is_refused_with_the_one_that_is_spoken(
    gateway: LiveGateway, version: str, named: str | None
) -> None:
    changed = {"Sec-WebSocket-Version": version} if named else {"Sec-WebSocket-Key": "short"}
    status, headers, _ = upgrade(gateway, UPGRADE | changed)
    assert (status, headers["Sec-WebSocket-Version"]) == (400, named)


def test_only_get_is_upgraded(gateway: LiveGateway) -> None:
    status, _, body = upgrade(gateway, UPGRADE, path="/healthz", method="POST")
    assert (status, body["error"]["code"]) == (405, "method_not_allowed")


def test_wrong_secrets_are_limited_together_with_http(guarded: LiveGateway) -> None:
    details = []
    for _ in range(4):
        with raw_client(guarded) as client:
            client.receive()
            details.append(client.refusal("connect", connect_params("wrong"))["details"]["code"])
    assert details == ["AUTH_TOKEN_MISMATCH"] * 3 + ["AUTH_RATE_LIMITED"]
    with raw_client(guarded) as client:
        client.receive()
        error = client.refusal("connect", connect_params())
        assert error["details"]["code"] == "AUTH_RATE_LIMITED"
        assert error["retryAfterMs"] > 0
    with guarded.client() as http_client:
        assert http_client.get("/v1/models").status_code == 429
        until(lambda: http_client.get("/v1/models").status_code == 200)
    with operator_client(guarded) as client:
        assert client.call("health")["ok"]


def test_missing_password_is_named_in_error(tmp_path: Path) -> None:
    config = scripted_config(auth={"mode": "password", "password": "open sesame"})
    with live_gateway(tmp_path, config) as running:
        with raw_client(running) as client:
            client.receive()
            error = client.refusal("connect", connect_params(None, auth={"password": "wrong"}))
            assert error["details"]["code"] == "AUTH_PASSWORD_MISMATCH"
        with operator_client(running, auth={"password": "open sesame"}) as client:
            assert client.call("health")["ok"]


def test_without_authentication_only_loopback_names_are_upgraded(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config(auth={"mode": "none"})) as running:
        status, _, body = upgrade(running, UPGRADE | {"Host": "rebound.example.com"})
        assert (status, body["error"]["code"]) == (403, "host_not_allowed")
        with operator_client(running, token=None) as client:
            assert client.call("health")["ok"]


def test_stopping_closes_connections_at_once(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config()) as running, operator_client(running) as client:
        running.process.terminate()
        assert client.event("shutdown")["payload"]["reason"]
        assert closed(client)[0] == 1012
        assert running.process.wait(20) == 0


def test_unauthenticated_client_cannot_fill_memory(gateway: LiveGateway) -> None:
    with socket.create_connection(gateway.address, 10) as stranger:
        stranger.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        ping = b"\x89\xfd\0\0\0\0" + b"p" * 125
        with pytest.raises(OSError, match=r"(?i)reset|broken pipe"):  # nothing of the pongs is read
            stranger.sendall(ping * 1_000_000)
