"""The request parser: accepted requests, and the refusal of everything ambiguous."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import GatewayError
from service.server.http1.parser import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    Framing,
    Head,
    check_trailer,
    find_head_end,
    parse_chunk_size,
    parse_framing,
    parse_head,
)

_LINE = b"POST /echo HTTP/1.1\r\n"
_HOST = b"Host: gateway\r\n"


def _post(*fields: bytes) -> bytes:
    return _LINE + _HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


#: Refused heads by the name of their fault, with the error code.
REFUSED: dict[str, tuple[bytes, str]] = {
    "lower-case version": (b"GET / http/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "HTTP/2.0": (b"PRI * HTTP/2.0\r\n\r\n", "malformed_request"),
    "HTTP/0.9": (b"GET /\r\n\r\n", "malformed_request"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n" + _HOST + b"\r\n", "malformed_request"),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "tab for a space": (b"GET\t/ HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "trailing space": (b"GET / HTTP/1.1 \r\n" + _HOST + b"\r\n", "malformed_request"),
    "space in the target": (b"GET /a b HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "bytes in the target": (b"GET /\xc3\xa9 HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "fragment in the target": (b"GET /#a HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "method that is no token": (b"G(T / HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "endless method": (b"G" * 33 + b" / HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "asterisk with GET": (b"GET * HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "authority-form": (b"CONNECT gateway:80 HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "relative target": (b"GET echo HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "user in the authority": (b"GET http://me@gateway/ HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "no authority": (b"GET http:///echo HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "two empty lines first": (b"\r\n\r\nGET / HTTP/1.1\r\n" + _HOST + b"\r\n", "malformed_request"),
    "line feed after the request line": (b"GET / HTTP/1.1\n" + _HOST + b"\r\n", "malformed_request"),
    "line feed between headers": (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "malformed_request"),
    "line feeds only": (b"GET / HTTP/1.1\nHost: a\n\n", "malformed_request"),
    "carriage return in a value": (_post(b"X-A: a\rb"), "malformed_request"),
    "zero byte in a value": (_post(b"X-A: a\0b"), "malformed_request"),
    "delete character in a value": (_post(b"X-A: a\x7fb"), "malformed_request"),
    "vertical tab before the coding": (_post(b"Transfer-Encoding: \x0bchunked"), "malformed_request"),
    "folded header": (_post(b"X-A: a", b" b"), "malformed_request"),
    "folded with a tab": (_post(b"X-A: a", b"\tb"), "malformed_request"),
    "space before the first header": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "malformed_request"),
    "space before the colon": (_post(b"Content-Length : 5"), "malformed_request"),
    "tab before the colon": (_post(b"Transfer-Encoding\t: chunked"), "malformed_request"),
    "no colon": (_post(b"Content-Length"), "malformed_request"),
    "no name": (_post(b": 5"), "malformed_request"),
    "bytes in a name": (_post(b"X-\xe9: 5"), "malformed_request"),
    "no Host": (_LINE + b"\r\n", "malformed_request"),
    "two Hosts": (_post(b"Host: other"), "malformed_request"),
    "empty Host": (_LINE + b"Host:\r\n\r\n", "malformed_request"),
    "Host with a path": (_LINE + b"Host: a/b\r\n\r\n", "malformed_request"),
    "Host with a user": (_LINE + b"Host: me@a\r\n\r\n", "malformed_request"),
    "differing Content-Lengths": (_post(b"Content-Length: 5", b"Content-Length: 6"), "malformed_request"),
    "equal Content-Lengths": (_post(b"Content-Length: 5", b"content-length: 5"), "malformed_request"),
    "list of Content-Lengths": (_post(b"Content-Length: 5, 5"), "malformed_request"),
    "Content-Length with a sign": (_post(b"Content-Length: +15"), "malformed_request"),
    "negative Content-Length": (_post(b"Content-Length: -1"), "malformed_request"),
    "Content-Length with an underscore": (_post(b"Content-Length: 1_0"), "malformed_request"),
    "empty Content-Length": (_post(b"Content-Length:"), "malformed_request"),
    "hexadecimal Content-Length": (_post(b"Content-Length: 0x5"), "malformed_request"),
    "superscript Content-Length": (_post(b"Content-Length: \xb2"), "malformed_request"),
    "endless Content-Length": (_post(b"Content-Length: 1" + b"0" * 18), "malformed_request"),
    "two Content-Types": (_post(b"Content-Type: a/b", b"Content-Type: a/b"), "malformed_request"),
    "two Authorizations": (_post(b"Authorization: Bearer a", b"authorization: Bearer b"), "malformed_request"),
    "two idempotency keys": (_post(b"Idempotency-Key: a", b"idempotency-key: a"), "malformed_request"),
    "two request ids": (_post(b"x-request-id: a", b"X-Request-Id: b"), "malformed_request"),
    "two of our own": (_post(b"x-openclaw-agent-id: a", b"X-OpenClaw-Agent-Id: a"), "malformed_request"),
    "length and chunked": (_post(b"Content-Length: 5", b"Transfer-Encoding: chunked"), "malformed_request"),
    "chunked and length": (_post(b"Transfer-Encoding: chunked", b"Content-Length: 5"), "malformed_request"),
    "gzip, chunked": (_post(b"Transfer-Encoding: gzip, chunked"), "malformed_request"),
    "identity coding": (_post(b"Transfer-Encoding: identity"), "malformed_request"),
    "chunked twice": (_post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), "malformed_request"),
    "xchunked": (_post(b"Transfer-Encoding: xchunked"), "malformed_request"),
    "quoted chunked": (_post(b'Transfer-Encoding: "chunked"'), "malformed_request"),
    "empty coding": (_post(b"Transfer-Encoding:"), "malformed_request"),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "malformed_request"),
    "unknown expectation": (_post(b"Expect: 200-ok"), "malformed_request"),
    "gzip body": (_post(b"Content-Encoding: gzip"), "unsupported_media_type"),
    "too many headers": (_post(*[b"X-A: a"] * MAX_FIELDS), "headers_too_large"),
    "too large headers": (_post(b"X-A: " + b"a" * MAX_HEAD_BYTES), "headers_too_large"),
    "too long target": (b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n" + _HOST + b"\r\n", "uri_too_long"),
    "endless target": (b"GET /" + b"a" * 2 * MAX_HEAD_BYTES, "uri_too_long"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "malformed_request"),
    "binary": (b"\x00\x01\x02", "malformed_request"),
}


def _read(raw: bytes) -> tuple[Head, Framing]:
    head = parse_head(raw[: find_head_end(raw, 0)])
    return head, parse_framing(head)


@pytest.mark.parametrize("name", REFUSED)
def test_ambiguous_request_is_refused(name: str) -> None:
    raw, code = REFUSED[name]
    with pytest.raises(GatewayError) as caught:
        _read(raw)
    assert caught.value.code == code
    assert len(caught.value.message) > 20


def test_head_is_parsed_into_method_target_version_and_headers() -> None:
    head, framing = _read(b"GET /a/%20?b=c HTTP/1.1\r\nHost: gateway:80\r\nX-Thing:  \ta b\t \r\nEmpty:\r\n\r\n")
    assert head == Head("GET", "/a/%20?b=c", "HTTP/1.1", {"host": "gateway:80", "x-thing": "a b", "empty": ""})
    assert framing == Framing(content_length=None, chunked=False, expects_continue=False, keep_alive=True)


def test_environ_has_decoded_path_raw_query_and_headers() -> None:
    head, _ = _read(b"PUT /a%2Fb?c=%20 HTTP/1.0\r\nContent-Type: a/b\r\nContent-Length: 1\r\nX-A-B: c\r\n\r\n")
    assert head.to_environ() == {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "c=%20",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "1",
        "HTTP_X_A_B": "c",
    }


@pytest.mark.parametrize(
    ("target", "origin", "host"),
    [
        (b"http://other:81/a?b", "/a?b", "other:81"),
        (b"HTTPS://other", "/", "other"),
        (b"http://other?b", "/?b", "other"),
        (b"http://[::1]:80/a", "/a", "[::1]:80"),
    ],
)
def test_absolute_target_replaces_the_host(target: bytes, origin: str, host: str) -> None:
    head, _ = _read(b"GET " + target + b" HTTP/1.1\r\nHost: gateway\r\n\r\n")
    assert (head.target, head.headers["host"]) == (origin, host)


def test_asterisk_is_a_target_of_options() -> None:
    assert _read(b"OPTIONS * HTTP/1.1\r\n" + _HOST + b"\r\n")[0].target == "*"


def test_repeated_fields_are_joined_and_underscore_names_dropped() -> None:
    head, _ = _read(_post(b"Accept: a", b"accept: b", b"Cookie: c=1", b"cookie: d=2", b"Content_Length: 7"))
    assert head.headers == {"host": "gateway", "accept": "a, b", "cookie": "c=1; d=2"}


def test_one_empty_line_before_a_request_is_accepted() -> None:
    assert _read(b"\r\nGET / HTTP/1.0\r\n\r\n")[0] == Head("GET", "/", "HTTP/1.0", {})


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"Upgrade, CLOSE", False),
        (b"1.1", b"Upgrade", True),
        (b"1.0", b"", False),
        (b"1.0", b"Keep-Alive", True),
    ],
)
def test_connection_is_kept_by_default_only_in_http_1_1(version: bytes, connection: bytes, *, kept: bool) -> None:
    field = b"Connection: " + connection + b"\r\n" if connection else b""
    _, framing = _read(b"GET / HTTP/" + version + b"\r\n" + _HOST + field + b"\r\n")
    assert framing.keep_alive is kept


def test_body_is_framed_by_length_or_chunks() -> None:
    assert _read(_post(b"Content-Length: 015", b"Content-Encoding: Identity"))[1].content_length == 15
    assert _read(_post(b"Transfer-Encoding: Chunked", b"Expect: 100-Continue"))[1] == Framing(
        content_length=None, chunked=True, expects_continue=True, keep_alive=True
    )


def test_expectation_in_http_1_0_is_ignored() -> None:
    assert not _read(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")[1].expects_continue


def test_upgrade_in_http_1_0_is_ignored() -> None:
    fields = b"Host: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert "upgrade" not in _read(b"GET / HTTP/1.0\r\n" + fields)[0].headers
    assert _read(b"GET / HTTP/1.1\r\n" + fields)[0].headers["upgrade"] == "websocket"


def test_head_ends_at_the_blank_line_for_any_split() -> None:
    raw = b"\r\n" + _post(b"X-A: b") + b"body\r\n\r\n"
    ends = [find_head_end(raw[:size], size - 1) for size in range(1, len(raw) + 1)]
    whole = len(raw) - len(b"body\r\n\r\n")
    assert ends[: whole - 1] == [-1] * (whole - 1)
    assert ends[whole - 1] == whole
    assert find_head_end(raw, 0) == whole


def test_bare_line_feed_is_refused_as_soon_as_it_arrives() -> None:
    with pytest.raises(GatewayError, match="CR LF"):
        find_head_end(b"GET / HTTP/1.1\n", 14)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: _LINE + _HOST + tail + b"\r\n\r\n"))
def test_any_bytes_parse_or_raise_a_client_error(raw: bytes) -> None:
    try:
        find_head_end(raw, 0)
        parse_framing(parse_head(raw))
        status = 200
    except GatewayError as error:
        status = error.status
    assert status in {200, 400, 414, 415, 431}


@pytest.mark.parametrize(("line", "size"), [(b"0", 0), (b"1a", 26), (b"FF;a=b", 255), (b'5 ; a="b c"', 5)])
def test_chunk_size_is_hexadecimal_and_extensions_are_ignored(line: bytes, size: int) -> None:
    assert parse_chunk_size(line) == size


@pytest.mark.parametrize(
    "line", [b"", b"g", b"0x5", b"+5", b"-1", b"5 ", b" 5", b"5;a\x00", b"5;\n", b"1_0", b"F" * 16]
)
def test_invalid_chunk_size_is_refused(line: bytes) -> None:
    with pytest.raises(GatewayError, match="chunk"):
        parse_chunk_size(line)


def test_trailer_must_be_a_header() -> None:
    check_trailer(b"X-Checksum: abc")
    for line in (b"no colon", b" folded: a", b"X : a", b"X: a\x00"):
        with pytest.raises(GatewayError, match="last chunk"):
            check_trailer(line)
