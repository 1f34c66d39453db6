"""The WebSocket itself, on real sockets: whole messages, slow readers, broken frames."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import gevent
import gevent.server
import gevent.socket
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from service.api.websocket.connection import WebSocket
from service.core.byte_budget import ByteBudget
from service.core.concurrency import sleep, spawn

BIG = 20 * 1024 * 1024


class Pair:
    """Both ends of a connection: ours as the gateway has it, theirs as the library of a client sees it."""

    def __init__(self, *, stall_seconds: float = 60.0, max_buffered_bytes: int = 50 * 1024 * 1024) -> None:
        listener = gevent.socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        self.theirs = gevent.socket.socket()
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self.theirs.connect(listener.getsockname())
        self.sock, _ = listener.accept()
        listener.close()
        self.budget = ByteBudget()
        self.ours = WebSocket(
            self.sock,
            stall_seconds=stall_seconds,
            max_buffered_bytes=max_buffered_bytes,
            budget=self.budget,
        )
        self.client = ClientProtocol(parse_uri("ws://x/"), state=State.OPEN, max_size=None)
        self.got: list[bytes | None] = []

    def listen(self) -> gevent.Greenlet:
        """Take in what they send, beside the caller, until the end."""

        def receive() -> None:
            self.got.extend(message for message, _ in self.ours.messages())

        return spawn(receive)

    def tell(self, *frames: Frame) -> None:
        for frame in frames:
            self.theirs.sendall(frame.serialize(mask=True))

    def read(self, piece: int = 64 * 1024, pause_seconds: float = 0.0) -> Iterator[Frame]:
        """Their frames, read at their pace."""
        self.theirs.settimeout(30)
        while data := self.theirs.recv(piece):
            self.client.receive_data(data)
            for event in self.client.events_received():
                assert isinstance(event, Frame)
                yield event
            if pause_seconds:
                sleep(pause_seconds)

    def close(self) -> None:
        self.theirs.close()
        self.sock.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_message_of_20_mb_reaches_slow_reader_whole(pair: Pair) -> None:
    message = b"0123456789abcdef" * (BIG // 16)
    pair.ours.send(message)
    pair.ours.send(b"after")
    frames = pair.read(piece=256 * 1024, pause_seconds=0.005)
    assert next(frames).data == message
    assert next(frames).data == b"after"
    assert pair.ours.buffered_bytes == pair.budget.used_bytes == 0


def test_sending_never_waits_and_stops_at_the_bound() -> None:
    pair = Pair(max_buffered_bytes=1024 * 1024)
    for _ in range(40):
        pair.ours.send(b"x" * 64 * 1024)
    sleep(0)
    assert pair.ours.dropped == "it reads too slowly"
    assert pair.ours.buffered_bytes == pair.budget.used_bytes == 0
    listening = pair.listen()
    listening.join(timeout=10)
    assert listening.dead
    pair.close()


def test_peer_that_accepts_no_data_for_too_long_is_dropped() -> None:
    pair = Pair(stall_seconds=0.3)
    listening = pair.listen()
    pair.ours.send(b"x" * 8 * 1024 * 1024)
    listening.join(timeout=20)
    assert pair.ours.dropped == "it accepted no data for too long"
    pair.close()


def test_peer_that_accepts_some_data_regularly_is_kept() -> None:
    slow = Pair(stall_seconds=2.5)
    slow.ours.send(b"x" * 3 * 1024 * 1024)
    frame = next(slow.read(piece=128 * 1024, pause_seconds=0.1))
    assert len(frame.data) == 3 * 1024 * 1024
    assert slow.ours.dropped is None
    slow.close()


def test_fragments_and_what_comes_between_are_put_together(pair: Pair) -> None:
    listening = pair.listen()
    pair.tell(
        Frame(Opcode.TEXT, b"one ", fin=False),
        Frame(Opcode.PING, b"still there?"),
        Frame(Opcode.CONT, b"", fin=False),
        Frame(Opcode.CONT, b"message"),
        Frame(Opcode.BINARY, b"\x00"),
        Frame(Opcode.TEXT, b""),
    )
    assert next(pair.read()).opcode is Opcode.PONG
    pair.tell(Frame(Opcode.CLOSE, struct.pack("!H", 1000)))
    listening.join(timeout=10)
    assert pair.got == [b"one message", None, b""]


def test_message_beyond_limit_closes_with_1009(pair: Pair) -> None:
    pair.ours.limit_messages(1000)
    listening = pair.listen()
    pair.tell(Frame(Opcode.TEXT, b"x" * 900, fin=False), Frame(Opcode.CONT, b"x" * 101))
    close = next(pair.read())
    assert (close.opcode, struct.unpack("!H", close.data[:2])[0]) == (Opcode.CLOSE, 1009)
    listening.join(timeout=10)
    assert pair.got == []


def test_closing_sends_what_waits_first(pair: Pair) -> None:
    listening = pair.listen()
    pair.ours.send(b"x" * 1024 * 1024)
    pair.ours.close(1012, "ü" * 200)
    pair.ours.close(1000, "again")
    pair.ours.send(b"too late")
    frames = list(zip(pair.read(), range(2), strict=False))
    assert [frame.opcode for frame, _ in frames] == [Opcode.TEXT, Opcode.CLOSE]
    assert struct.unpack("!H", frames[1][0].data[:2])[0] == 1012
    pair.tell(Frame(Opcode.CLOSE, struct.pack("!H", 1012)))
    listening.join(timeout=10)
    pair.ours.finish()
    assert listening.dead


@settings(max_examples=150)
@given(st.binary(max_size=400))
def test_whatever_bytes_come_the_connection_ends_or_waits(noise: bytes) -> None:
    made = Pair()
    try:
        made.ours.limit_messages(10_000)
        listening = made.listen()
        made.theirs.sendall(noise)
        made.theirs.shutdown(socket.SHUT_WR)
        listening.join(timeout=20)
        assert listening.dead
        assert listening.exception is None
        made.ours.finish()
    finally:
        made.close()
