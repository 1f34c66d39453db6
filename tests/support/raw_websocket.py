"""An operator client on a raw socket, which can read slowly or not at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Iterator
from typing import Any

import orjson
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import State
from websockets.uri import parse_uri

from support.live import LiveGateway
from support.operator_client import connect_params

_REST_SECONDS = 0.7

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def raw_connection(gateway: LiveGateway) -> socket.socket:
    """A connection with a small buffer that has asked to be let in, and of which nothing was read yet."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.connect(gateway.address)
    sock.settimeout(30)
    sock.sendall(UPGRADE + masked({"type": "req", "id": "c", "method": "connect", "params": connect_params()}))
    return sock


def paused_frames(sock: socket.socket, pause_after: Collection[int]) -> Iterator[bytes]:
    """Yield the frames of a connection, with a pause after each number of bytes in `pause_after`."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(sock)
    protocol = ClientProtocol(parse_uri("ws://x/"), state=State.OPEN, max_size=None)
    data, total, rests = received.partition(b"\r\n\r\n")[2], 0, sorted(pause_after)
    while True:
        protocol.receive_data(data)
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            yield bytes(event.data)
        if rests and total >= rests[0]:
            time.sleep(_REST_SECONDS)
            del rests[0]
        data = sock.recv(64 * 1024)
        assert data
        total += len(data)


def raw_operator(gateway: LiveGateway) -> socket.socket:
    """A connection that was let in, with a small buffer."""
    sock = raw_connection(gateway)
    received = b""
    while b"hello-ok" not in received:
        received += _receive(sock)
    return sock


def _receive(sock: socket.socket) -> bytes:
    data = sock.recv(4096)
    assert data, "the gateway closed the connection"
    return data


def masked(frame: dict[str, Any]) -> bytes:
    """A frame as a client sends it, with a mask that changes nothing."""
    data = orjson.dumps(frame)
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + data
