"""The documented nginx configuration on a real nginx: streams pass unbuffered, WebSockets pass."""

from __future__ import annotations

import base64
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
from support.http1_server import eventually
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
EXAMPLE = Path(__file__).parents[3] / "examples" / "nginx.conf"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")

AROUND = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
{snippet}
}}
"""


def snippet_for(port: int, gateway: tuple[str, int]) -> str:
    """The example, without TLS, at this test's ports."""
    text = re.sub(r"\n *ssl_certificate[^\n]*", "", EXAMPLE.read_text(encoding="utf-8"))
    text, listens = re.subn(r"listen 443 ssl;", f"listen 127.0.0.1:{port};", text)
    text, servers = re.subn(r"server gateway:18789;", f"server {gateway[0]}:{gateway[1]};", text)
    assert (listens, servers) == (1, 1)
    return text


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, LiveGateway]]:
    """Nginx's address, and the gateway of two workers behind it."""
    directory = tmp_path_factory.mktemp("nginx")
    directory.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    config = scripted_config(trustedProxies=["127.0.0.1"])
    with live_gateway(directory / "gateway", config, arguments=("--workers", "2")) as running:
        path = directory / "nginx.conf"
        path.write_text(AROUND.format(directory=directory, snippet=snippet_for(port, running.address)))
        process = subprocess.Popen([str(NGINX), "-p", str(directory), "-c", str(path)])
        try:
            eventually(lambda: is_open(port))
            yield f"http://127.0.0.1:{port}", running
        finally:
            process.terminate()
            process.wait(10)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_stream_passes_nginx_unbuffered(behind: tuple[str, LiveGateway]) -> None:
    url, _ = behind
    headers = {"Authorization": f"Bearer {TOKEN}", "x-openclaw-model": "scripted/slow"}
    body = {"model": "openclaw", "messages": [user("hi")], "stream": True}
    with httpx.stream("POST", f"{url}{PATH}", json=body, headers=headers, timeout=60) as response:
        assert response.status_code == 200
        came = [(time.monotonic(), piece) for piece in response.iter_bytes() if piece]
    assert b"".join(piece for _, piece in came).rstrip().endswith(b"data: [DONE]")
    assert len(came) > 5
    assert came[-1][0] - came[0][0] > 0.5  # the model takes about two seconds over it


def test_client_address_is_taken_from_nginx(behind: tuple[str, LiveGateway]) -> None:
    url, running = behind
    forged = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "198.51.100.9", "x-request-id": "behind-nginx"}
    assert httpx.get(f"{url}/v1/models", headers=forged, timeout=30).status_code == 200
    eventually(lambda: "request_id=behind-nginx" in running.output)
    [line] = [line for line in running.output.splitlines() if "request_id=behind-nginx" in line]
    assert "client=127.0.0.1" in line
    assert "198.51.100.9" not in running.output


def test_websocket_passes_nginx(behind: tuple[str, LiveGateway]) -> None:
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
