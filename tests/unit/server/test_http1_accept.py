"""Accepting connections when descriptors run out or the limit is reached."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.http1_server import open_edge, parse_answer, read_to_end, read_until
from support.polling import until


def test_server_recovers_after_running_out_of_descriptors(tmp_path: Path) -> None:
    with open_edge(tmp_path / "log", open_files=24) as edge:
        held = [edge.connect() for _ in range(30)]
        until(lambda: "could not be accepted" in edge.logged())
        time.sleep(0.3)
        assert edge.logged().count("could not be accepted") < 50
        for connection in held:
            connection.close()
        assert edge.get("/hello").body == b"hello"
        edge.signal(signal.SIGTERM)
        assert edge.wait() == 0
        assert "Traceback" not in edge.logged()


def test_oldest_partial_heads_make_room_when_all_places_are_taken(tmp_path: Path) -> None:
    with open_edge(tmp_path / "log", limits={"connections": 8, "head_seconds": 60}) as edge:
        held = [edge.connect() for _ in range(12)]
        for connection in held:
            connection.sendall(b"GET /hello HTTP/1.1\r\nHost: ")
        assert edge.get("/hello").body == b"hello"
        assert read_to_end(held[0]) == b""
        for connection in held:
            connection.close()


def test_partial_heads_of_one_address_are_limited(tmp_path: Path) -> None:
    with open_edge(tmp_path / "log", limits={"partial_heads": 2, "head_seconds": 60}) as edge:
        held = [edge.connect() for _ in range(3)]
        for connection in held:
            connection.sendall(b"GET /hello HTTP/1.1\r\nHost: ")
            assert edge.get("/hello").body == b"hello"  # once it has read what was sent before
        assert read_to_end(held[0]) == b""
        for connection in held[1:]:
            connection.sendall(b"edge\r\nConnection: close\r\n\r\n")
            assert parse_answer(read_to_end(connection)).body == b"hello"
        for connection in held:
            connection.close()


def test_connections_beyond_the_limit_wait_to_be_accepted(tmp_path: Path) -> None:
    with open_edge(tmp_path / "log", limits={"connections": 1}) as edge, edge.connect() as first:
        first.sendall(b"GET /stream?count=100&gap=0.1 HTTP/1.1\r\nHost: edge\r\n\r\n")
        read_until(first, b"0\n")
        with edge.connect() as second:
            second.sendall(b"GET /hello HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")
            second.settimeout(0.2)
            with pytest.raises(TimeoutError):
                second.recv(1)
            first.close()
            second.settimeout(30)
            assert parse_answer(read_to_end(second)).body == b"hello"


def test_connections_that_become_idle_make_room_when_all_places_are_taken(tmp_path: Path) -> None:
    with open_edge(tmp_path / "log", limits={"connections": 3}) as edge, ExitStack() as stack:
        kept = []
        for _ in range(3):  # all are busy when the next ones come
            connection = stack.enter_context(edge.connect())
            time.sleep(0.1)  # a request may come a while after its connection
            connection.sendall(b"GET /stream?count=10&gap=0.2 HTTP/1.1\r\nHost: edge\r\n\r\n")
            read_until(connection, b"0\n")
            kept.append(connection)
        for _ in range(4):
            assert edge.get("/hello").body == b"hello"
        assert read_to_end(kept[0]).endswith(b"0\r\n\r\n")
