"""Requests over sockets of their own, which the caller may leave at any moment."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import orjson

from support.chat import PATH, user
from support.live import TOKEN, LiveGateway


def start_request(
    gateway: LiveGateway, *, headers: Mapping[str, str], path: str = PATH, text: str = "hi", **body: Any
) -> socket.socket:
    """Send `body`, to chat completions with the message `text`, and return the socket, the answer unread."""
    connection = socket.create_connection(gateway.address, timeout=60)
    data = orjson.dumps({"messages": [user(text)], **body} if path == PATH else body)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Content-Type: application/json\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection
