"""Shutdown: running requests finish, idle connections are closed, bursts of signals count once."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest
from support.http1_server import Edge, open_edge, parse_answer, read_to_end, read_until

from service.server.lifecycle import StopSignals

_STREAM = b"GET /stream?count=%d&gap=%s HTTP/1.1\r\nHost: edge\r\n\r\n"
_GET = b"GET /hello HTTP/1.1\r\nHost: edge\r\n\r\n"


def _begin_stream(edge: Edge, count: int, gap: bytes) -> socket.socket:
    connection = edge.connect()
    connection.sendall(_STREAM % (count, gap))
    read_until(connection, b"0\n\r\n")
    return connection


def _stop(edge: Edge, number: signal.Signals) -> None:
    edge.signal(number)
    assert edge.next_line() == "stopping"


def test_sigterm_lets_requests_finish_and_ends_idle_connections(tmp_path: Path) -> None:
    with (
        open_edge(tmp_path / "log", grace_seconds=60) as edge,
        edge.connect() as fresh,
        edge.connect() as kept,
        edge.connect() as sending,
        _begin_stream(edge, 5, b"0.2") as stream,
    ):
        kept.sendall(_GET)
        read_until(kept, b"hello")
        sending.sendall(b"POST /echo HTTP/1.1\r\nHost: edge\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        read_until(sending, b"100 Continue\r\n\r\n")
        _stop(edge, signal.SIGTERM)
        assert read_to_end(kept) == read_to_end(fresh) == b""
        with pytest.raises(ConnectionRefusedError):
            edge.connect()
        sending.sendall(b"1234")
        answer = parse_answer(read_to_end(sending))
        assert (answer.body, answer.headers["connection"]) == (b"1234", "close")
        assert read_to_end(stream).endswith(b"4\n\r\n0\r\n\r\n")
        assert edge.next_line() == "stopped"
        assert edge.wait() == 0


def test_burst_of_sigint_is_one_stop_request(tmp_path: Path) -> None:
    with open_edge(tmp_path / "log") as edge, _begin_stream(edge, 3, b"0.2") as stream:
        for _ in range(4):
            edge.signal(signal.SIGINT)
        assert read_to_end(stream).endswith(b"2\n\r\n0\r\n\r\n")
        edge.signal(signal.SIGINT)
        assert edge.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_later_signal_stops_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with open_edge(tmp_path / "log", grace_seconds=60) as edge, _begin_stream(edge, 3000, b"0.02") as stream:
        _stop(edge, signal.SIGINT)
        time.sleep(1.1)
        edge.signal(number)
        assert not read_to_end(stream).endswith(b"\r\n0\r\n\r\n")
        assert edge.wait() == 0


def test_request_that_outlasts_the_grace_period_is_closed(tmp_path: Path) -> None:
    with open_edge(tmp_path / "log", grace_seconds=0.3) as edge, _begin_stream(edge, 3000, b"0.02") as stream:
        _stop(edge, signal.SIGTERM)
        assert not read_to_end(stream).endswith(b"\r\n0\r\n\r\n")
        assert edge.next_line() == "stopped"
        assert edge.wait() == 0
        assert "path=/stream status=200" in edge.logged()
        assert "Traceback" not in edge.logged()


def test_only_a_signal_more_than_a_second_after_the_first_forces() -> None:
    now = [100.0]
    signals = StopSignals(lambda: now[0])
    for at in (100.0, 100.4, 101.0):
        now[0] = at
        signals.on_signal()
    assert signals.asked.is_set()
    assert not signals.forced.is_set()
    now[0] = 101.1
    signals.on_signal()
    assert signals.forced.is_set()
