"""The configurations of reverse proxies in deploy/ on real proxies: streams pass unbuffered, WebSockets pass."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.chat import PATH, user
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.polling import until

DEPLOY = Path(__file__).parents[3] / "deploy"
PACKAGES = {"nginx": "nginx-light", "caddy": "caddy"}

AROUND_NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
{snippet}
}}
"""
BEFORE_CADDY = "{\n\tadmin off\n}\n"


def replaced(text: str, *replacements: tuple[str, str]) -> str:
    """The text with each pattern, which has to occur once, replaced."""
    for pattern, value in replacements:
        text, count = re.subn(pattern, value, text)
        assert count == 1, pattern
    return text


def nginx(directory: Path, port: int, gateway: str) -> list[str]:
    """Write the documented configuration, without TLS and at this test's ports; return the command that serves it."""
    text = re.sub(r"\n *ssl_certificate[^\n]*", "", (DEPLOY / "nginx.conf").read_text(encoding="utf-8"))
    ports = (r"listen 443 ssl;", f"listen 127.0.0.1:{port};"), (r"server gateway:18789;", f"server {gateway};")
    path = directory / "nginx.conf"
    path.write_text(AROUND_NGINX.format(directory=directory, snippet=replaced(text, *ports)))
    return ["-p", str(directory), "-c", str(path)]


def caddy(directory: Path, port: int, gateway: str) -> list[str]:
    """Write the documented configuration, without TLS and at this test's ports; return the command that serves it."""
    text = (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    ports = (r"(?m)^gateway\.example\.com ", f"http://127.0.0.1:{port} "), (r"gateway:18789", gateway)
    path = directory / "Caddyfile"
    path.write_text(BEFORE_CADDY + replaced(text, *ports))
    return ["run", "--adapter", "caddyfile", "--config", str(path)]


@pytest.fixture(scope="module", params=[nginx, caddy], ids=list(PACKAGES))
def behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, LiveGateway]]:
    """The proxy's address, and the gateway of two workers behind it."""
    name = request.param.__name__
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {PACKAGES[name]})")
    directory = tmp_path_factory.mktemp(name)
    directory.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    config = scripted_config(trustedProxies=["127.0.0.1"])
    with live_gateway(directory / "gateway", config, arguments=("--workers", "2")) as running:
        host, gateway_port = running.address
        arguments = request.param(directory, port, f"{host}:{gateway_port}")
        environment = {**os.environ, "HOME": str(directory), "XDG_DATA_HOME": str(directory)}
        process = subprocess.Popen([program, *arguments], env=environment)
        try:
            until(lambda: is_open(port))
            yield f"http://127.0.0.1:{port}", running
        finally:
            process.terminate()
            process.wait(10)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_stream_passes_unbuffered(behind: tuple[str, LiveGateway]) -> None:
    url, _ = behind
    headers = {"Authorization": f"Bearer {TOKEN}", "x-openclaw-model": "scripted/slow"}
    body = {"model": "openclaw", "messages": [user("hi")], "stream": True}
    with httpx.stream("POST", f"{url}{PATH}", json=body, headers=headers, timeout=60) as response:
        assert response.status_code == 200
        came = [(time.monotonic(), piece) for piece in response.iter_bytes() if piece]
    assert b"".join(piece for _, piece in came).rstrip().endswith(b"data: [DONE]")
    assert len(came) > 5
    assert came[-1][0] - came[0][0] > 0.5  # the model takes about two seconds over it


def test_client_address_is_taken_from_proxy(behind: tuple[str, LiveGateway]) -> None:
    url, running = behind
    forged = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "198.51.100.9", "x-request-id": "behind-proxy"}
    assert httpx.get(f"{url}/v1/models", headers=forged, timeout=30).status_code == 200
    until(lambda: "request_id=behind-proxy" in running.output)
    [line] = [line for line in running.output.splitlines() if "request_id=behind-proxy" in line]
    assert "client=127.0.0.1" in line
    assert "198.51.100.9" not in running.output


def test_websocket_passes(behind: tuple[str, LiveGateway]) -> None:
    url, _ = behind
    host, port = url.removeprefix("http://").split(":")
    key = base64.b64encode(bytes(16)).decode()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        connection.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        received = b""
        while b"connect.challenge" not in received:  # the gateway's first frame on a connection
            data = connection.recv(65536)
            assert data, received
            received += data
    assert received.startswith(b"HTTP/1.1 101 ")
