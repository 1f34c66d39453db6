"""The HTTP server as clients see it: a real process and raw sockets."""

from __future__ import annotations

import http.client
import json
import re
import socket
import statistics
import time
from collections.abc import Iterator

import httpx
import pytest
from support.http1_server import Answer, Edge, open_edge, parse_answer, read_to_end, read_until
from support.polling import until

from unit.server.test_http1_parser import REFUSED

_POST = b"POST /echo HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n"
_ENVELOPE_KEYS = {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A server with the default limits."""
    with open_edge(tmp_path_factory.mktemp("edge") / "log") as edge:
        yield edge
        assert "failed with" not in edge.logged()  # gevent's message about an exception that leaves a greenlet


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A server with short timeouts."""
    limits = {
        "head_seconds": 0.3,
        "idle_seconds": 0.3,
        "body_stall_seconds": 0.3,
        "send_stall_seconds": 0.3,
        "linger_seconds": 0.3,
        "linger_bytes": 40_000_000,
    }
    with open_edge(tmp_path_factory.mktemp("impatient") / "log", limits=limits) as edge:
        yield edge
        assert "failed with" not in edge.logged()


def _check_refusal(answer: Answer, status: int, code: str) -> None:
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], set(error)) == (status, code, _ENVELOPE_KEYS)
    assert answer.headers["connection"] == "close"
    _check_common_headers(answer)


def _check_common_headers(answer: Answer) -> None:
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "permissions-policy" in answer.headers
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert "server" not in answer.headers


def test_every_response_has_the_common_headers(edge: Edge) -> None:
    for path in ("/hello", "/crash", "/error", "/empty", "/stream?count=1", "/refuse"):
        _check_common_headers(edge.get(path))


def test_list_has_a_length_and_a_stream_is_chunked(edge: Edge) -> None:
    whole = edge.get("/hello")
    assert (whole.headers["content-length"], whole.body) == ("5", b"hello")
    stream = edge.get("/stream?count=2")
    assert stream.headers["transfer-encoding"] == "chunked"
    assert stream.body == b"2\r\n0\n\r\n2\r\n1\n\r\n0\r\n\r\n"


def test_environ_has_the_request_and_the_clients_request_id(edge: Edge) -> None:
    answer = edge.get("/environ/a%20b?c=%20", "x-request-id: mine", "X-Under_Score: no", "Accept: a", "accept: b")
    environ = json.loads(answer.body)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/environ/a b", "c=%20")
    assert (environ["HTTP_HOST"], environ["HTTP_ACCEPT"]) == ("edge", "a, b")
    assert (environ["REMOTE_ADDR"], environ["SERVER_PORT"]) == ("127.0.0.1", str(edge.port))
    assert environ["openclaw.request_id"] == answer.headers["x-request-id"] == "mine"
    assert "HTTP_X_UNDER_SCORE" not in environ


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_request_gets_a_complete_answer_and_ends_the_connection(edge: Edge, name: str) -> None:
    raw, code = REFUSED[name]
    status = {"malformed_request": 400, "uri_too_long": 414, "unsupported_media_type": 415, "headers_too_large": 431}
    answer = edge.ask(raw + b"GET /hello HTTP/1.1\r\nHost: edge\r\n\r\n")
    _check_refusal(answer, status[code], code)
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_tls_handshake_is_answered_with_a_hint(edge: Edge) -> None:
    assert b"reverse proxy" in edge.ask(REFUSED["TLS"][0]).body


def test_stalled_head_gets_408_and_an_idle_connection_is_closed_silently(impatient: Edge) -> None:
    _check_refusal(impatient.ask(b"GET /hello HTTP/1.1\r\nHo"), 408, "request_timeout")
    with impatient.connect() as connection:
        assert read_to_end(connection) == b""


def test_kept_connection_is_closed_silently_after_its_idle_time(impatient: Edge) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /hello HTTP/1.1\r\nHost: edge\r\n\r\n")
        answer = parse_answer(read_to_end(connection))
    assert answer.body == b"hello"
    assert "connection" not in answer.headers


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_stalled_body_gets_408(impatient: Edge, framing: bytes) -> None:
    _check_refusal(impatient.ask(_POST + framing + b"\r\n\r\n5\r\nab"), 408, "request_timeout")


def test_broken_chunks_and_a_cut_body_get_400(edge: Edge) -> None:
    chunked = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
    _check_refusal(edge.ask(chunked + b"zz\r\n"), 400, "malformed_request")
    with edge.connect() as connection:
        connection.sendall(_POST + b"Content-Length: 9\r\n\r\nab")
        connection.shutdown(socket.SHUT_WR)
        _check_refusal(parse_answer(read_to_end(connection)), 400, "malformed_request")


def test_chunks_with_extensions_and_trailers_arriving_byte_by_byte_are_one_body(edge: Edge) -> None:
    with edge.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in _POST + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n":
            connection.send(bytes([byte]))
        assert parse_answer(read_to_end(connection)).body == b"abcde"


def test_pipelined_requests_are_answered_in_order(edge: Edge) -> None:
    first = b"POST /echo HTTP/1.1\r\nHost: edge\r\nContent-Length: 3\r\n\r\none"
    second = b"POST /echo HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
    unread = b"POST /hello HTTP/1.1\r\nHost: edge\r\nContent-Length: 8\r\n\r\n{unread}"
    with edge.connect() as connection:
        connection.sendall(first + second + unread + _POST + b"Content-Length: 5\r\n\r\nthree")
        raw = read_to_end(connection)
    assert re.findall(rb"\r\n\r\n(one|two|hello|three)", raw) == [b"one", b"two", b"hello", b"three"]
    assert raw.count(b"HTTP/1.1 200 OK") == 4


def test_connection_is_kept_for_further_requests(edge: Edge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
    locals_seen = set()
    for path in ("/hello", "/stream?count=3", "/empty", "/error", "/crash", "/hello"):
        connection.request("GET", path)
        assert connection.sock is not None
        locals_seen.add(connection.sock.getsockname())
        connection.getresponse().read()
    connection.close()
    assert len(locals_seen) == 1


def test_expect_100_is_answered_when_the_body_is_read(edge: Edge) -> None:
    with edge.connect() as connection:
        connection.sendall(_POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert parse_answer(read_to_end(connection)).body == b"abc"


def test_expect_100_is_answered_with_a_refusal_instead(edge: Edge) -> None:
    with edge.connect() as connection:
        connection.sendall(b"PUT /refuse HTTP/1.1\r\nHost: edge\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        answer = parse_answer(read_to_end(connection))
    assert (answer.status, answer.headers["connection"]) == (401, "close")


def test_100_is_not_sent_after_the_response_began(edge: Edge) -> None:
    with edge.connect() as connection:
        connection.sendall(_POST.replace(b"/echo", b"/late") + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        read_until(connection, b"begun\r\n")
        connection.sendall(b"abc")
        assert read_to_end(connection) == b"3\r\nabc\r\n0\r\n\r\n"


def test_http_1_0_gets_whole_and_streamed_answers(edge: Edge) -> None:
    assert edge.ask(b"GET /hello HTTP/1.0\r\n\r\n").body == b"hello"
    stream = edge.ask(b"GET /stream?count=3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert stream.body == b"0\n1\n2\n"
    assert "transfer-encoding" not in stream.headers
    with edge.connect() as connection:
        for _ in range(2):
            connection.sendall(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = parse_answer(read_until(connection, b"hello"))
            assert answer.headers["connection"] == "keep-alive"


def test_head_has_the_headers_of_get_and_no_body(edge: Edge) -> None:
    with edge.connect() as connection:
        connection.sendall(b"HEAD /stream?count=3 HTTP/1.1\r\nHost: edge\r\n\r\n")
        assert parse_answer(read_until(connection, b"\r\n\r\n")).body == b""
        connection.sendall(b"HEAD /hello HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")
        assert parse_answer(read_to_end(connection)).headers["content-length"] == "5"


def test_refusal_of_a_big_upload_can_be_read(edge: Edge) -> None:
    body = b"x" * 25 * 1024 * 1024
    plain = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
    plain.request("POST", "/refuse", body)
    response = plain.getresponse()
    assert (response.status, response.read(), response.getheader("connection")) == (401, b"no", "close")
    plain.close()
    with httpx.Client(base_url=f"http://127.0.0.1:{edge.port}", trust_env=False) as client:
        assert client.post("/refuse", content=body).status_code == 401
        assert client.post("/refuse", content=iter([body[:1_000_000]] * 25)).status_code == 401


def test_refusal_survives_an_upload_that_begins_after_it(edge: Edge) -> None:
    with edge.connect() as connection:
        connection.sendall(b"POST /refuse HTTP/1.1\r\nHost: edge\r\nContent-Length: 5000000\r\n\r\n")
        time.sleep(0.1)
        connection.sendall(b"x" * 5_000_000)
        assert parse_answer(read_to_end(connection)).status == 401


def test_endless_upload_is_cut_off(impatient: Edge) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"POST /refuse HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall((b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 200)


def test_application_may_read_part_of_the_body(edge: Edge) -> None:
    answer = edge.ask(_POST.replace(b"/echo", b"/echo?size=3") + b"Content-Length: 9000000\r\n\r\n" + b"x" * 9_000_000)
    assert (answer.body, answer.headers["connection"]) == (b"xxx", "close")


def test_each_piece_of_a_stream_leaves_at_once(edge: Edge) -> None:
    with edge.connect() as connection:
        connection.sendall(b"GET /stepped HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")
        assert b"HTTP/1.1 200 OK" in read_until(connection, b"0\n\r\n")
        edge.get("/step")
        assert read_to_end(connection) == b"2\r\n1\n\r\n0\r\n\r\n"


def test_headers_and_body_leave_in_one_write(edge: Edge) -> None:
    with edge.connect() as connection:
        for _ in range(50):
            connection.sendall(b"GET /hello HTTP/1.1\r\nHost: edge\r\n\r\n")
            assert connection.recv(65536).endswith(b"hello")


def test_reader_that_stops_is_dropped_and_its_stream_closed(impatient: Edge) -> None:
    before = int(impatient.get("/closed").body)
    with impatient.connect() as connection:
        connection.sendall(b"GET /flood HTTP/1.1\r\nHost: edge\r\n\r\n")
        until(lambda: int(impatient.get("/closed").body) == before + 1)
        with pytest.raises(ConnectionResetError):
            read_to_end(connection)
    assert re.search(r"path=/flood status=200 .* complete=no", impatient.logged())


def test_client_that_leaves_ends_its_stream_silently(edge: Edge) -> None:
    before = int(edge.get("/closed").body)
    with edge.connect() as connection:
        connection.sendall(b"GET /flood HTTP/1.1\r\nHost: edge\r\n\r\n")
        read_until(connection, b"\r\n\r\n")
    with edge.connect() as connection:
        connection.sendall(b"GET /hangup HTTP/1.1\r\nHost: edge\r\n\r\n")
    until(lambda: int(edge.get("/closed").body) == before + 2)


def _ask_and_half_close(edge: Edge, request_line: bytes) -> bytes:
    with edge.connect() as connection:
        connection.sendall(request_line + b"\r\nHost: edge\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        return read_to_end(connection)


def test_half_closed_client_gets_its_response(edge: Edge) -> None:
    before = int(edge.get("/closed").body)
    received = _ask_and_half_close(edge, b"GET /hangup?seconds=0.5 HTTP/1.1")
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert parse_answer(received.partition(b"\r\n\r\n")[2]).body == b"hello"
    assert int(edge.get("/closed").body) == before


def test_half_closed_client_gets_its_whole_stream(edge: Edge) -> None:
    received = _ask_and_half_close(edge, b"GET /watched-stream?count=4&gap=0.2 HTTP/1.1")
    chunks = re.findall(rb"\r\n0*2\r\n(\d)\n", received)
    assert chunks == [b"0", b"1", b"2", b"3"]
    assert received.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("path", [b"/hangup?seconds=9", b"/watched-stream?count=2&gap=9"])
def test_closed_client_is_noticed_while_the_response_is_quiet(edge: Edge, path: bytes) -> None:
    before = int(edge.get("/closed").body)
    with edge.connect() as connection:
        connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: edge\r\n\r\n")
        time.sleep(0.1)
    until(lambda: int(edge.get("/closed").body) == before + 1)


def test_client_of_http_1_0_that_closes_its_side_is_gone(edge: Edge) -> None:
    before = int(edge.get("/closed").body)
    with edge.connect() as connection:
        connection.sendall(b"GET /hangup?seconds=9 HTTP/1.0\r\n\r\n")
    until(lambda: int(edge.get("/closed").body) == before + 1)


def test_crash_is_answered_without_details_and_logged_with_its_traceback(edge: Edge) -> None:
    for path in ("/crash", "/exit", "/silent", "/text"):
        answer = edge.get(path)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (500, "internal_error")
        assert b"secret" not in answer.body
    assert 'RuntimeError("a secret' in edge.logged()


def test_gateway_error_is_answered_with_its_envelope(edge: Edge) -> None:
    answer = edge.get("/error")
    assert (answer.status, answer.headers["retry-after"]) == (409, "1")
    assert json.loads(answer.body)["error"]["code"] == "session_busy"


@pytest.mark.parametrize(("path", "body"), [("/crash-late", b"5\r\nbegun\r\n"), ("/short", b"12345")])
def test_incomplete_response_is_visibly_cut(edge: Edge, path: str, body: bytes) -> None:
    answer = edge.ask(f"GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n".encode())
    assert (answer.status, answer.body) == (200, body)


def test_upgraded_connection_belongs_to_the_application(impatient: Edge) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /upgrade HTTP/1.1\r\nHost: edge\r\nConnection: Upgrade\r\n\r\nearly")
        answer = parse_answer(read_until(connection, b"early"))
        assert (answer.status, answer.headers["connection"], answer.body) == (101, "Upgrade", b"early")
        time.sleep(0.4)
        connection.sendall(b"late")
        assert read_until(connection, b"late") == b"late"


def test_access_log_has_one_line_without_query_or_body(edge: Edge) -> None:
    edge.ask(
        _POST.replace(b"/echo", b'/echo/"=%0a?key=hidden') + b"x-request-id: r-7\r\nContent-Length: 5\r\n\r\nwords"
    )
    until(lambda: "request_id=r-7" in edge.logged())
    line = next(line for line in edge.logged().splitlines() if "request_id=r-7" in line)
    pattern = (
        r'openclaw\.access method=POST path="/echo/\\"=%0a" status=200 duration_ms=[\d.]+ bytes=5 '
        r'request_id=r-7 client=127\.0\.0\.1 agent="ma in" run=r1'
    )
    assert re.fullmatch(pattern, line)
    assert not re.search("hidden|words", edge.logged())


def test_small_answers_do_not_wait_for_acknowledgements(edge: Edge) -> None:
    with edge.connect() as connection:
        took = []
        for _ in range(50):
            began_at = time.monotonic()
            connection.sendall(b"GET /stream?count=3 HTTP/1.1\r\nHost: edge\r\n\r\n")
            read_until(connection, b"0\r\n\r\n")
            took.append(time.monotonic() - began_at)
        assert statistics.median(took) < 0.03  # Nagle's algorithm would cost 40 ms each


@pytest.mark.parametrize("size", [3, 30_000_000])
@pytest.mark.parametrize("reads", [True, False])
def test_access_log_counts_the_pieces_that_were_sent(edge: Edge, impatient: Edge, size: int, *, reads: bool) -> None:
    request_id = f"offer-{size}-{reads}"
    server = edge if reads else impatient
    with server.connect() as connection:
        connection.sendall(
            f"GET /offer?size={size} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n"
            f"X-Request-Id: {request_id}\r\n\r\n".encode()
        )
        if reads:
            assert read_to_end(connection).count(b"x") > size  # the headers have some, too
        until(lambda: f"request_id={request_id} " in server.logged())
    line = next(line for line in server.logged().splitlines() if f"request_id={request_id} " in line)
    fits = reads or size < 1000
    assert f" bytes={5 + size if fits else 5} " in line
    assert ("complete=no" in line) is not fits
