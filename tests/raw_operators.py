"""An operator whose socket is the test's own: to read as slowly as it likes, or not at all."""

from __future__ import annotations

import socket
from typing import Any

import orjson
from live import LiveGateway
from operator_client import connect_params

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def raw_operator(gateway: LiveGateway) -> socket.socket:
    """A connection that was let in, with a small buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.connect(gateway.address)
    sock.settimeout(30)
    sock.sendall(UPGRADE + masked({"type": "req", "id": "c", "method": "connect", "params": connect_params()}))
    received = b""
    while b"hello-ok" not in received:
        received += sock.recv(4096)
    return sock


def masked(frame: dict[str, Any]) -> bytes:
    """A frame as a client sends it, with a mask that changes nothing."""
    data = orjson.dumps(frame)
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + data
