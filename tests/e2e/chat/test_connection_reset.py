"""Connections that the caller resets."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

import pytest
from support.live import live_gateway, scripted_config
from support.raw_request import start_request

RESET = struct.pack("ii", 1, 0)
DELAYS_SECONDS = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_connection_reset_frees_session(tmp_path: Path, stream: bool) -> None:
    headers = {"x-openclaw-session-key": "reset", "x-openclaw-model": "scripted/silent"}
    with live_gateway(tmp_path, scripted_config()) as running:
        for delay in DELAYS_SECONDS * 10:
            connection = start_request(running, stream=stream, headers=headers)
            time.sleep(delay)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()
        with running.client() as client:
            headers["x-openclaw-model"] = "scripted/echo"
            body = {"messages": [{"role": "user", "content": "still there?"}]}
            assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
