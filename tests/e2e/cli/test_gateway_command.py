"""`openclaw gateway`: start-up errors, output, shutdown."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.chat import PATH, ask, error_of, text_of, user
from support.live import TOKEN, live_gateway, scripted_config

ENABLED = {"endpoints": {"chatCompletions": {"enabled": True}}}


def run(directory: Path, *arguments: str, config: Any = None, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run `openclaw gateway` to completion; return its status and output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    if config is not None:
        (directory / ".openclaw").mkdir(exist_ok=True)
        text = config if isinstance(config, str) else orjson.dumps(config).decode()
        (directory / ".openclaw" / "openclaw.json").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "service", "gateway", "--port", "0", *arguments],
        env={**clean, "HOME": str(directory), **(env or {})},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_missing_file_is_reported_with_path_and_remedy(tmp_path: Path) -> None:
    status, output = run(tmp_path)
    assert status == 1
    assert str(tmp_path / ".openclaw" / "openclaw.json") in output
    assert "--dev" in output
    assert "chatCompletions" in output


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"gateway": {"http": ENABLED}}, "OPENCLAW_GATEWAY_TOKEN"),
        ({"gateway": {"auth": {"token": "a", "password": "b"}}}, "gateway.auth.mode"),
        ({"gateway": {"auth": {"mode": "none"}, "bind": "lan"}}, "none"),
        ({"gateway": {"auth": {"mode": "token", "token": "${NO_SUCH_VARIABLE}"}}}, "NO_SUCH_VARIABLE"),
        ({"gateway": {"auth": {"tokn": "a"}}}, "did you mean `token`"),
        ({"gateway": {"port": 99999}}, "gateway.port"),
        ({"gateway": {"tls": {"enabled": True}}}, "reverse proxy"),
        ({"gateway": {"mode": "remote"}}, 'set it to "local" to serve here'),
        ({**scripted_config(), "agents": {"defaults": {"model": "nowhere/x"}}}, 'No provider "nowhere" is configured'),
        ({**scripted_config(), "tools": {"exec": {"security": "allowlist"}}}, "tools.exec.security"),
        ({**scripted_config(), "agents": {"defaults": {"sandbox": {"mode": "all"}}}}, "agents.defaults.sandbox.mode"),
        ("{ gateway: ", "line 1"),
    ],
)
def test_invalid_configuration_prevents_start(tmp_path: Path, config: Any, expected: str) -> None:
    status, output = run(tmp_path, config=config)
    assert status == 1
    assert expected in output
    assert "Traceback" not in output


def test_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, output = run(tmp_path, "--port", port, config=scripted_config())
    assert status == 1
    assert port in output
    assert "--port" in output


def test_endpoint_is_disabled_by_default(tmp_path: Path) -> None:
    config = scripted_config(http={})
    with live_gateway(tmp_path, config) as running, running.client() as client:
        for response in (ask(client, "hi"), client.get("/v1/models"), client.get("/v1/models/openclaw")):
            assert error_of(response)[:2] == (404, "endpoint_disabled")
            assert "gateway.http.endpoints.chatCompletions.enabled" in response.text
        assert client.get("/healthz").status_code == 200
        assert "off" in running.output


def test_dev_writes_configuration_once_and_prints_working_call(tmp_path: Path) -> None:
    config = scripted_config()
    with live_gateway(tmp_path, config, arguments=("--dev",), env={"OPENCLAW_CONFIG_PATH": ""}) as running:
        written = next(tmp_path.rglob("state/openclaw.json"))
        token = re.search(r"Bearer ([\w-]{20,})", running.output)
        assert token is not None
        assert written.stat().st_mode & 0o777 == 0o600
        with running.client(token[1]) as client:
            assert client.get("/v1/models").status_code == 200
        first = written.read_bytes()
    with live_gateway(tmp_path, config, arguments=("--dev",), env={"OPENCLAW_CONFIG_PATH": ""}) as running:
        assert written.read_bytes() == first
        assert token[1] in running.output


def test_openclaw_file_is_used_unchanged(tmp_path: Path) -> None:
    config = {**scripted_config(), "channels": {"telegram": {}}, "plugins": {"x": 1}}
    with live_gateway(tmp_path, config) as running, running.client() as client:
        assert text_of(ask(client, "hi")) == "hi"
        assert "channels" in running.output
        assert "plugins" in running.output


def test_secret_is_read_from_environment(tmp_path: Path) -> None:
    config = scripted_config(auth={"mode": "password"})
    secret = {"OPENCLAW_GATEWAY_PASSWORD": "mật khẩu"}
    with live_gateway(tmp_path, config, env=secret) as running, running.client(None) as client:
        right: Any = {"Authorization": "Bearer mật khẩu".encode()}
        wrong: Any = {"Authorization": "Bearer mật khẩu!".encode()}
        assert client.get("/v1/models", headers=right).status_code == 200
        assert client.get("/v1/models", headers=wrong).status_code == 401


def test_without_authentication_only_loopback_names_are_served(tmp_path: Path) -> None:
    config = scripted_config(auth={"mode": "none"})
    with live_gateway(tmp_path, config) as running, httpx.Client(base_url=running.url) as client:
        assert text_of(ask(client, "hi")) == "hi"
        document = client.get("/openapi.json").json()
        assert "security" not in document
        assert "securitySchemes" not in document["components"]
        assert "401" not in document["paths"]["/v1/chat/completions"]["post"]["responses"]
        rebound = client.get("/v1/models", headers={"Host": "evil.example"})
        assert error_of(rebound)[:2] == (403, "host_not_allowed")


def test_failed_attempts_lock_address_out_and_right_token_too(tmp_path: Path) -> None:
    limit = {"maxAttempts": 3, "windowMs": 60_000, "lockoutMs": 60_000, "exemptLoopback": False}
    config = scripted_config(auth={"mode": "token", "token": TOKEN, "rateLimit": limit})
    with live_gateway(tmp_path, config) as running, running.client("wrong") as client:
        statuses = [client.get("/v1/models").status_code for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        with running.client() as right:
            locked = right.get("/v1/models")
        assert error_of(locked)[:2] == (429, "too_many_failed_attempts")
        assert 0 < int(locked.headers["retry-after"]) <= 60
        assert client.get("/healthz").status_code == 200


def test_proxy_headers_count_only_from_trusted_proxy(tmp_path: Path) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    with live_gateway(tmp_path / "a", scripted_config()) as running, running.client() as client:
        refused = client.get("/healthz", headers=forwarded)
        assert error_of(refused)[:2] == (403, "untrusted_proxy_headers")
    with live_gateway(tmp_path / "b", scripted_config(trustedProxies=["127.0.0.1"])) as running:
        with running.client() as client:
            assert client.get("/v1/models", headers=forwarded).status_code == 200
        running.stop()  # the log line is written after the response
        assert "client=203.0.113.7" in running.output


def test_access_log_has_one_line_for_each_request_and_no_secret(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config()) as running:
        with running.client() as client:
            answer = ask(client, "a private question", headers={"x-request-id": "find-me"})
        running.stop()
        of_request = [line for line in running.output.splitlines() if "request_id=find-me" in line]
        [line] = [line for line in of_request if "openclaw.access" in line]
    assert len(of_request) == 2  # that of the run, too
    for part in ("method=POST", f"path={PATH}", "status=200", "agent=main", f"run={answer.json()['id']}"):
        assert part in line
    assert "private" not in running.output
    assert TOKEN not in running.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_lets_running_answers_finish_and_exits_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with live_gateway(tmp_path, scripted_config()) as running, running.client() as client:
        body = {"model": "openclaw", "messages": [user("hi")], "stream": True}
        with client.stream("POST", PATH, json=body, headers={"x-openclaw-model": "scripted/slow"}) as answer:
            lines = answer.iter_lines()
            text = next(lines)  # it has begun
            running.process.send_signal(number)
            text += "".join(lines)
        assert " ends." in text
        assert text.endswith("data: [DONE]")
        assert running.process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/healthz")


def test_second_ctrl_c_after_pause_stops_at_once(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config(), arguments=("--grace", "600")) as running:
        connection = socket.create_connection(running.address)
        body = orjson.dumps({"messages": [user("hi")], "stream": True})
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += "Content-Type: application/json\r\nx-openclaw-model: scripted/stuck\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(12) == b"HTTP/1.1 200"  # it has begun
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGINT)  # a burst counts once
        time.sleep(1.3)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
        connection.close()


def test_state_directory_is_private(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config()) as running, running.client() as client:
        ask(client, "hi")
        modes = {path.stat().st_mode & 0o077 for path in running.state_dir.rglob("*")}
        assert modes == {0}


def test_port_of_running_gateway_is_reported_as_such(tmp_path: Path) -> None:
    with live_gateway(tmp_path / "running", scripted_config()) as running:
        port = str(running.address[1])
        status, output = run(tmp_path, "--port", port, config=scripted_config())
    assert status == 1
    assert f"port {port}: Address already in use. A gateway is already running at http://127.0.0.1:{port};" in output
    assert "`openclaw status`" in output


def test_port_of_another_program_is_not_reported_as_gateway(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, output = run(tmp_path, "--port", str(other.getsockname()[1]), config=scripted_config())
    assert status == 1
    assert "Free the port, or choose another with --port or gateway.port." in output
    assert "already running" not in output
