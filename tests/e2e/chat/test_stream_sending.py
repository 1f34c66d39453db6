"""Streams on real sockets: pieces that the client's socket takes in part, or not at all, and silence between them."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator

import orjson
import pytest
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream

PIECES, PIECE = 40, "ab \N{LATIN SMALL LETTER E WITH ACUTE}\n" * 20_000
PAUSE_SECONDS = 0.01


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as stub:
        yield stub


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("sending"), stubbed_config(upstream.url)) as running:
        yield running


def send_pieces(exchange: Exchange) -> None:
    """Answer with large pieces, one after the other."""
    exchange.head()
    for number in range(PIECES):
        exchange.event({"content": f"{number}:{PIECE}"})
        exchange.wait(PAUSE_SECONDS)
    exchange.end()


def ask(gateway: LiveGateway, version: str) -> socket.socket:
    """Send a request for a stream over a connection that holds little."""
    data = orjson.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True})
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(gateway.address)
    head = f"POST /v1/chat/completions {version}\r\nHost: gateway\r\nAuthorization: Bearer {TOKEN}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def read(connection: socket.socket) -> str:
    """Read the stream to its end; return its text."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    assert response.status == 200
    events = response.read().split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    chunks = [orjson.loads(event.removeprefix(b"data: ")) for event in events[:-2] if not event.startswith(b":")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("wait_seconds", [0.0, 1.0])
def test_client_that_reads_late_gets_every_byte_once(
    gateway: LiveGateway, upstream: Upstream, version: str, wait_seconds: float
) -> None:
    upstream.answers["ok"] = send_pieces
    with ask(gateway, version) as connection:
        time.sleep(wait_seconds)
        assert read(connection) == "".join(f"{number}:{PIECE}" for number in range(PIECES))
