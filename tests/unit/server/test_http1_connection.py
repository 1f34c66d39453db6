"""Bodies and connections on real sockets: complete, broken, slow and abandoned."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from service.core.concurrency import spawn
from service.core.errors import GatewayError
from service.server.http1.body import Body
from service.server.http1.connection import Connection, ConnectionLimits, PeerGoneError, raise_open_file_limit
from service.server.http1.parser import Framing

_SHORT = ConnectionLimits(head_seconds=0.2, idle_seconds=0.2, body_stall_seconds=0.2, send_stall_seconds=0.2)
_CHUNKED = Framing(content_length=None, chunked=True, expects_continue=False, keep_alive=True)


def _sized(size: int, *, expects_continue: bool = False) -> Framing:
    return Framing(content_length=size, chunked=False, expects_continue=expects_continue, keep_alive=True)


class Pair:
    """The two ends of a connection: `here` the server's, `peer` the client's."""

    def __init__(self, limits: ConnectionLimits) -> None:
        ours, self.peer = socket.socketpair()
        self.here = Connection(ours, limits, time.monotonic)
        self.peer.settimeout(30)


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A pair with the default limits or the test's parameter."""
    pair = Pair(getattr(request, "param", ConnectionLimits()))
    with pair.here.socket, pair.peer:
        yield pair


def _limits(limits: ConnectionLimits) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", [limits], indirect=True)


def test_body_ends_after_its_length_and_leaves_following_bytes(pair: Pair) -> None:
    pair.peer.sendall(b"12345next")
    body = Body(pair.here, _sized(5))
    assert (body.read(2), body.read(), body.read(1), body.finished) == (b"12", b"345", b"", True)
    assert pair.here.read_some(100, 1) == b"next"


def test_body_is_read_by_lines(pair: Pair) -> None:
    pair.peer.sendall(b"one\ntwo\nthree")
    assert list(Body(pair.here, _sized(13))) == [b"one\n", b"two\n", b"three"]


@pytest.mark.parametrize("size", [-1, 1, 3, 1000])
def test_chunks_are_joined_for_any_read_size(pair: Pair, size: int) -> None:
    pair.peer.sendall(b'3;x="y"\r\nabc\r\n00a\r\n0123456789\r\n0\r\nX-Trailer: a\r\n\r\nnext')
    body = Body(pair.here, _CHUNKED)
    pieces = list(iter(lambda: body.read(size), b""))
    assert b"".join(pieces) == b"abc0123456789"
    assert {len(piece) for piece in pieces[:-1]} <= {size}
    assert body.finished
    assert pair.here.buffer == b"next"


def test_chunks_arrive_one_byte_at_a_time(pair: Pair) -> None:
    def trickle() -> None:
        for byte in b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\nA: b\r\n\r\n":
            pair.peer.sendall(bytes([byte]))
            time.sleep(0.002)

    thread = threading.Thread(target=trickle)
    thread.start()
    assert Body(pair.here, _CHUNKED).read() == b"hello!"
    thread.join()


def test_chunks_of_one_byte_are_read_in_linear_time(pair: Pair) -> None:
    count = 50_000
    thread = threading.Thread(target=pair.peer.sendall, args=(b"1\r\nx\r\n" * count + b"0\r\n\r\n",))
    thread.start()
    assert Body(pair.here, _CHUNKED).read() == b"x" * count
    thread.join()


def test_body_without_pauses_lets_other_greenlets_run(pair: Pair) -> None:
    others: list[str] = []
    spawn(others.append, "ran")
    thread = threading.Thread(target=pair.peer.sendall, args=(b"x" * 1_000_000,))
    thread.start()
    assert len(Body(pair.here, _sized(1_000_000)).read()) == 1_000_000
    thread.join()
    assert others == ["ran"]


@pytest.mark.parametrize(
    "sent",
    [
        b"x\r\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"3\nabc\r\n",
        b"3\r\nabc\n\n",
        b"\r\n",
        b"3;" + b"a" * 5000,
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n" + b"A: bbbbbbbb\r\n" * 1000 + b"\r\n",
        (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 6,
    ],
)
def test_broken_chunks_are_refused_on_every_read(pair: Pair, sent: bytes) -> None:
    pair.peer.sendall(sent)
    body = Body(pair.here, _CHUNKED)
    for _ in range(2):
        with pytest.raises(GatewayError, match="chunked body is broken") as caught:
            body.read()
        assert caught.value.code == "malformed_request"
    assert not body.is_at_hand


@pytest.mark.parametrize("framing", [_CHUNKED, _sized(100)])
def test_client_that_leaves_in_mid_body_is_an_error(pair: Pair, framing: Framing) -> None:
    pair.peer.sendall(b"5\r\nab")
    pair.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(GatewayError, match="ended before") as caught:
        Body(pair.here, framing).read()
    assert caught.value.code == "malformed_request"


@_limits(_SHORT)
@pytest.mark.parametrize("framing", [_CHUNKED, _sized(100)])
def test_stalled_body_times_out(pair: Pair, framing: Framing) -> None:
    pair.peer.sendall(b"5\r\nab")
    with pytest.raises(GatewayError, match=r"for 0\.2 seconds") as caught:
        Body(pair.here, framing).read()
    assert caught.value.code == "request_timeout"


@_limits(ConnectionLimits(body_seconds=0.4))
def test_trickling_body_times_out_after_the_total_time(pair: Pair) -> None:
    done = threading.Event()

    def trickle() -> None:
        while not done.wait(0.03):
            pair.peer.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    with pytest.raises(GatewayError, match=r"more than 0\.4 seconds") as caught:
        Body(pair.here, _sized(1000)).read()
    done.set()
    thread.join()
    assert caught.value.code == "request_timeout"


def test_continue_is_sent_once_to_a_waiting_client(pair: Pair) -> None:
    told: list[bytes] = []

    def send_once_told() -> None:
        told.append(pair.peer.recv(1000))
        pair.peer.sendall(b"abcd")

    thread = threading.Thread(target=send_once_told)
    thread.start()
    body = Body(pair.here, _sized(4, expects_continue=True))
    assert body.read(1) + body.read(3) == b"abcd"
    thread.join()
    pair.here.send(b"done")
    assert [*told, pair.peer.recv(1000)] == [b"HTTP/1.1 100 Continue\r\n\r\n", b"done"]


def test_continue_is_not_sent_after_the_response_began(pair: Pair) -> None:
    body = Body(pair.here, _sized(2, expects_continue=True))
    body.owes_continue = False
    pair.peer.sendall(b"ab")
    assert body.read() == b"ab"
    pair.here.send(b"done")
    assert pair.peer.recv(1000) == b"done"


def test_unread_body_that_has_arrived_is_discarded(pair: Pair) -> None:
    pair.peer.sendall(b"bodynext")
    assert pair.here.fill(1)
    body = Body(pair.here, _sized(4))
    assert body.is_at_hand
    body.discard()
    assert body.read() == b""
    assert pair.here.buffer == b"next"
    assert not Body(pair.here, _sized(5)).is_at_hand


@_limits(_SHORT)
def test_stalled_head_times_out_and_a_cut_one_gets_no_answer(pair: Pair) -> None:
    pair.peer.sendall(b"GET / HTTP/1.1\r\n")
    with pytest.raises(GatewayError) as caught:
        pair.here.read_head()
    assert caught.value.code == "request_timeout"
    pair.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(PeerGoneError):
        pair.here.read_head()


@_limits(_SHORT)
def test_idle_connection_ends_unless_a_request_has_begun(pair: Pair) -> None:
    assert not pair.here.wait_for_request()
    pair.peer.sendall(b"G")
    pair.here.end_if_idle()
    assert pair.here.wait_for_request()
    pair.here.buffer.clear()
    pair.here.end_if_idle()
    assert pair.peer.recv(1) == b""


@_limits(_SHORT)
def test_peer_that_does_not_read_is_dropped(pair: Pair) -> None:
    with pytest.raises(PeerGoneError):
        pair.here.send(b"x" * 50_000_000)


def test_peer_that_reads_slowly_gets_everything(pair: Pair) -> None:
    size = 3_000_000
    thread = threading.Thread(target=pair.here.send, args=(b"x" * size,))
    thread.start()
    received = 0
    while received < size:
        time.sleep(0.02)
        received += len(pair.peer.recv(200_000))
    thread.join()
    assert received == size


def test_no_probe_is_sent_within_a_piece_that_was_taken_in_part(pair: Pair) -> None:
    pair.here.probe = lambda: b"0"
    pair.here.socket.setblocking(False)
    data = b"x" * 3_000_000
    rest = pair.here.offer(data)
    received = len(data) - len(rest)
    assert 0 < received < len(data)
    assert pair.peer.recv(received, socket.MSG_WAITALL) == data[:received]  # now a probe would fit
    assert pair.here.probe_peer()
    pair.here.send(b"the rest")
    assert pair.here.probe_peer()
    assert pair.peer.recv(100) == b"the rest0"


def test_open_file_limit_only_grows() -> None:
    first = raise_open_file_limit()
    assert raise_open_file_limit() == first
