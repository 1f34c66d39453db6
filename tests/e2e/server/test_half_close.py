"""Clients that close their sending side after the request, and clients that are gone."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import orjson
import pytest
from support.chat import PATH, user
from support.http1_server import read_to_end
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.polling import until


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("gateway"), scripted_config()) as running:
        yield running


def send(gateway: LiveGateway, model: str, *, stream: bool, request_id: str) -> socket.socket:
    body = orjson.dumps({"messages": [user("hi")], "stream": stream})
    lines = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close",
        f"Content-Type: application/json\r\nx-openclaw-model: scripted/{model}\r\nx-request-id: {request_id}",
        f"Content-Length: {len(body)}\r\n\r\n",
    )
    connection = socket.create_connection(gateway.address, timeout=60)
    connection.sendall("\r\n".join(lines).encode() + body)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_half_closed_client_gets_its_whole_answer(gateway: LiveGateway, *, stream: bool) -> None:
    with send(gateway, "slow", stream=stream, request_id=f"half-{stream}") as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = read_to_end(connection)
    assert b"HTTP/1.1 200 OK" in answer
    assert (b"data: [DONE]" if stream else b'"finish_reason":"stop"') in answer


@pytest.mark.parametrize("stream", [False, True])
def test_run_ends_when_its_client_is_gone(gateway: LiveGateway, *, stream: bool) -> None:
    with send(gateway, "silent", stream=stream, request_id=f"gone-{stream}"):
        time.sleep(0.5)
    until(lambda: f"request_id=gone-{stream}" in gateway.output)
