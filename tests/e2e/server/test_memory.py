"""The budget of bytes in flight on a live gateway: what is refused, what is evicted, and that memory goes back."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial

import orjson
import psutil
import pytest
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.operator_client import operator_client
from support.polling import until
from support.raw_websocket import raw_operator
from support.upstream import Exchange, Upstream
from websockets.exceptions import ConnectionClosedError
from websockets.frames import CloseCode

MIB = 1024 * 1024
LIMIT = 128 * MIB
#: Memory of the process beside the budget: caches, allocator, garbage between collections.
SLACK = 96 * MIB


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as stub:
        yield stub


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[LiveGateway]:
    config = stubbed_config(upstream.url)
    config["gateway"]["maxInFlightBytes"] = LIMIT
    with live_gateway(tmp_path_factory.mktemp("memory"), config) as running:
        with running.client() as client:
            client.get("/readyz")
        yield running


class Memory:
    """The resident memory of a gateway, in bytes, and the most of it that `sample` saw."""

    def __init__(self, gateway: LiveGateway) -> None:
        self._process = psutil.Process(gateway.process.pid)
        self.before = self.peak = self.now

    @property
    def now(self) -> int:
        return int(self._process.memory_info().rss)

    def sample(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.peak = max(self.peak, self.now)
            time.sleep(0.02)

    def wait_until_back(self) -> None:
        """Wait until most of what was taken has gone back to the system."""
        until = time.monotonic() + 30
        while self.now > self.before + SLACK and time.monotonic() < until:
            time.sleep(0.1)
        assert self.now <= self.before + SLACK


def test_twenty_large_bodies_are_answered_or_refused_within_the_budget(gateway: LiveGateway) -> None:
    text = "x" * (19 * MIB)
    body = orjson.dumps({"messages": [{"role": "user", "content": text}]})
    memory = Memory(gateway)
    url, headers = "/v1/chat/completions", {"Content-Type": "application/json"}

    def post(_: int) -> tuple[int, str | None]:
        with gateway.client(timeout=120) as client:
            response = client.post(url, content=body, headers=headers)
            return response.status_code, response.headers.get("Retry-After")

    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(post, number) for number in range(20)]
        while not all(answer.done() for answer in answers):
            memory.sample(0.1)
    results = [answer.result() for answer in answers]
    assert {status for status, _ in results} <= {200, 503}
    assert any(status == 200 for status, _ in results)
    assert all(retry_after is not None for status, retry_after in results if status == 503)
    assert memory.peak < memory.before + LIMIT + SLACK
    memory.wait_until_back()


def test_large_bodies_that_stall_make_room_for_others(gateway: LiveGateway) -> None:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {20 * MIB}\r\n\r\n"
    )
    with ExitStack() as stack:
        for _ in range(8):
            stalled = stack.enter_context(socket.create_connection(gateway.address))
            stalled.sendall(head.encode() + b"{")
        time.sleep(0.5)
        messages = [{"role": "user", "content": "x" * (2 * MIB)}]
        with gateway.client() as client:
            assert client.post("/v1/chat/completions", json={"messages": messages}).status_code == 200


def test_readers_that_do_not_read_lose_their_runs_before_memory_runs_out(
    gateway: LiveGateway, upstream: Upstream
) -> None:
    piece = "y" * 16384

    def answer_long(exchange: Exchange) -> None:
        exchange.head()
        for _ in range(500):
            exchange.event({"content": piece})
        exchange.end()

    upstream.answers["ok"] = answer_long
    body = orjson.dumps({"stream": True, "messages": [{"role": "user", "content": "go"}]})
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    memory, readers = Memory(gateway), 150
    runs_before = _ended_runs(gateway)
    with ExitStack() as stack:
        for _ in range(readers):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(gateway.address)
            reader.sendall(head.encode() + body)
        memory.sample(12)
        with gateway.client() as client:
            assert client.get("/healthz").status_code == 200
        assert memory.peak < memory.before + LIMIT + SLACK
    del upstream.answers["ok"]
    assert "overloaded" in gateway.output
    memory.wait_until_back()
    until(lambda: _ended_runs(gateway) >= runs_before + readers)  # what they say would be sent to later operators


def _ended_runs(gateway: LiveGateway) -> int:
    return gateway.output.count(" openclaw.run ")


def test_half_sent_websocket_messages_are_bounded_and_end_with_a_retryable_error(gateway: LiveGateway) -> None:
    size = 24 * MIB
    start = b"\x81\xff" + size.to_bytes(8, "big") + b"\0\0\0\0"
    memory = Memory(gateway)
    with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        clients = [stack.enter_context(raw_operator(gateway)) for _ in range(16)]
        sending = [pool.submit(_send_most, client, start + b" " * (size - 100)) for client in clients]
        memory.sample(10)
        with gateway.client() as client:
            assert client.post(
                "/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]}
            ).is_success
        refused = until(lambda: sum(b'"OVERLOADED"' in _received(connection) for connection in clients))
        assert memory.peak < memory.before + LIMIT + SLACK
        for connection in clients:
            with suppress(OSError):  # the gateway has closed some
                connection.shutdown(socket.SHUT_RDWR)
        for one in sending:
            one.result()
    assert refused < len(clients)
    memory.wait_until_back()


def _send_most(client: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        client.sendall(data)


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(65536, socket.MSG_DONTWAIT)
    except OSError:
        return b""


def test_memory_of_connections_that_were_cut_goes_back(gateway: LiveGateway) -> None:
    memory = Memory(gateway)
    for number in range(16):
        until(partial(_run_and_cut, gateway, number))
    memory.wait_until_back()


def _run_and_cut(gateway: LiveGateway, number: int) -> bool:
    """Return False if there is no room yet, because connections that were cut are not forgotten at once."""
    with operator_client(gateway) as client:
        try:
            client.run("w" * (12 * MIB), f"cut-{number}", sessionKey=f"agent:main:cut-{number}")
        except ConnectionClosedError as refused:
            if refused.rcvd is None or refused.rcvd.code != CloseCode.TRY_AGAIN_LATER:
                raise
            return False
        client.connection.socket.shutdown(socket.SHUT_RDWR)
    return True


def test_a_message_without_room_gets_a_retryable_error_under_its_id(gateway: LiveGateway) -> None:
    text = "z" * (10 * MIB)
    frame = {"type": "req", "id": "big", "method": "sessions.list", "params": {"label": text}}
    data = orjson.dumps(frame)
    message = b"\x81\xff" + len(data).to_bytes(8, "big") + b"\0\0\0\0" + data
    body = orjson.dumps({"messages": [{"role": "user", "content": "x" * (19 * MIB)}]})
    with ExitStack() as stack, raw_operator(gateway) as client:
        uploading = _accepted_upload(stack, gateway, len(body))
        uploading.sendall(body[: 18 * MIB])
        client.sendall(message)
        received = b""
        while b'"id":"big"' not in received:
            received += client.recv(65536)
    assert all(part in received for part in (b'"OVERLOADED"', b'"retryable":true', b'"retryAfterMs":5000'))


def _accepted_upload(stack: ExitStack, gateway: LiveGateway, size: int) -> socket.socket:
    """Begin a request until the gateway has room for its body, which it confirms with 100 Continue."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
    )
    while True:
        upload = stack.enter_context(socket.create_connection(gateway.address))
        upload.sendall(head.encode())
        if upload.recv(65536).startswith(b"HTTP/1.1 100 "):
            return upload
