"""A strict parser of HTTP/1.x requests (RFC 9112): bytes in, values or a `GatewayError` out.

Ambiguous input is refused, never repaired: a proxy in front and the gateway must agree on where a request ends. This
module does no input or output.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn
from urllib.parse import unquote

from service.core.errors import GatewayError

MAX_HEAD_BYTES = 64 * 1024
MAX_TARGET_BYTES = 8 * 1024
MAX_FIELDS = 128
MAX_CHUNK_LINE_BYTES = 4 * 1024

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # noqa: S105 - RFC 9110's name for the characters of a name
_VALUE = r"[^\x00-\x08\x0a-\x1f\x7f]"

_REQUEST_LINE = re.compile(rf"({_TOKEN}{{1,32}}) ([!-~]+) (HTTP/1\.[01])")
_FIELDS = re.compile(rf"(?:{_TOKEN}++:{_VALUE}*+\r\n)*+")
_FIELD = re.compile(rf"{_TOKEN}++:{_VALUE}*+")
_ABSOLUTE_TARGET = re.compile(r"https?://([^/?#]*)(/[^?#]*)?(\?[^#]*)?", re.IGNORECASE)
_HOST = re.compile(r"(?:[\w.\-~%!$&'()*+,;=]+|\[[0-9A-Fa-f:.%\w]+\])(?::[0-9]{0,5})?", re.ASCII)
_CHUNK_LINE = re.compile(rf"([0-9A-Fa-f]{{1,15}})(?:[ \t]*;{_VALUE}*+)?".encode())
_LONE_LINE_FEED = re.compile(rb"(?<!\r)\n")

_TLS_HANDSHAKE = 0x16
_TOKEN_BYTES = frozenset(byte for byte in range(256) if re.fullmatch(_TOKEN, chr(byte)))
_MAX_LINE_BYTES = MAX_TARGET_BYTES + 64  # the target, and room for a method and a version

#: Fields that determine the caller or the framing; a repetition makes the request ambiguous.
_SINGLETONS = frozenset({"host", "content-length", "content-type", "authorization", "idempotency-key", "x-request-id"})
_OWN_PREFIX = "x-openclaw-"


class Head(NamedTuple):
    """A request line and its headers.

    `target` is a path with its query, percent-encoded as received, or `*`; `version` is `HTTP/1.0` or `HTTP/1.1`;
    `headers` has lower-case names, with repeated fields joined.
    """

    method: str
    target: str
    version: str
    headers: dict[str, str]

    def to_environ(self) -> dict[str, str]:
        """Return the WSGI environ keys that describe the request."""
        path, _, query = self.target.partition("?")
        environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in self.headers.items()}
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if (value := environ.pop("HTTP_" + key, None)) is not None:
                environ[key] = value
        environ["REQUEST_METHOD"] = self.method
        environ["SCRIPT_NAME"] = ""
        environ["PATH_INFO"] = unquote(path, "latin-1") if "%" in path else path
        environ["QUERY_STRING"] = query
        environ["SERVER_PROTOCOL"] = self.version
        return environ


class Framing(NamedTuple):
    """The body's framing (`content_length` in bytes, `chunked`, or no body) and the persistence of the connection."""

    content_length: int | None
    chunked: bool
    expects_continue: bool
    keep_alive: bool


def malformed(message: str) -> GatewayError:
    """Return the error for a request that is not valid HTTP."""
    return GatewayError("malformed_request", message)


def find_head_end(buffer: bytes | bytearray, searched: int) -> int:
    """Return the offset just past the blank line that ends a request's head, or -1 when more bytes are needed.

    `searched` bytes were examined before. Raises `GatewayError` as soon as no further bytes could make it valid.
    """
    end = buffer.find(b"\r\n\r\n", max(0, searched - 3))
    if end < 0:
        _check_beginning(buffer)
        if _LONE_LINE_FEED.search(buffer, max(0, searched - 1)):
            raise _lone_line_feed()
    size = end + 4 if end >= 0 else len(buffer)
    if size > _MAX_LINE_BYTES and buffer.find(b"\r\n", 2, _MAX_LINE_BYTES + 2) < 0:
        raise _target_too_long()
    if size > MAX_HEAD_BYTES:
        raise GatewayError("headers_too_large", f"The request's headers exceed {MAX_HEAD_BYTES} bytes.")
    return size if end >= 0 else -1


def _check_beginning(buffer: bytes | bytearray) -> None:
    rest = buffer[2:3] if buffer.startswith(b"\r\n") else buffer[:1]
    if not rest or rest[0] in _TOKEN_BYTES or bytes(buffer) == b"\r":
        return
    if rest[0] == _TLS_HANDSHAKE:
        raise malformed(
            "This port speaks plain HTTP and received a TLS handshake. "
            "Use http://, or put a reverse proxy that terminates TLS in front of the gateway."
        )
    raise malformed("A request must begin with a method.")


def _target_too_long() -> GatewayError:
    return GatewayError("uri_too_long", f"The request target exceeds {MAX_TARGET_BYTES} bytes.")


def _lone_line_feed() -> GatewayError:
    return malformed("Lines must end in CR LF; a line of this request ends in LF alone.")


def parse_head(raw: bytes) -> Head:
    """Parse a whole head, blank line included. Raises `GatewayError` with the rule that it breaks."""
    text = raw.decode("latin-1")
    # RFC 9112 2.2: one empty line before a request is ignored.
    line, _, rest = text.removeprefix("\r\n").partition("\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        _refuse_line(line)
    method, target, version = match.groups()
    if len(target) > MAX_TARGET_BYTES:
        raise _target_too_long()
    headers = _parse_fields(rest[:-2])
    if version == "HTTP/1.0":
        headers.pop("upgrade", None)  # RFC 9110 7.8
    _check_host(version, headers.get("host"))
    if not target.startswith("/"):
        target = _parse_other_target(method, target, headers)
    if "#" in target:
        raise malformed("The request target must not contain '#': a fragment stays with the client.")
    return Head(method, target, version, headers)


def _refuse_line(line: str) -> NoReturn:
    if "\n" in line:
        raise _lone_line_feed()
    parts = line.split(" ")
    if len(parts) != 3 or "" in parts:  # noqa: PLR2004 - a request line has three parts
        raise malformed("The request line must be a method, a target and a version, with one space between them.")
    method, target, version = parts
    if re.fullmatch(rf"{_TOKEN}{{1,32}}", method) is None:
        raise malformed("The method must be a token of at most 32 characters.")
    if re.fullmatch(r"[!-~]+", target) is None:
        raise malformed("The request target must be visible ASCII; percent-encode everything else.")
    if re.fullmatch(r"HTTP/[0-9]\.[0-9]", version):
        raise malformed(f"{version} is not supported; use HTTP/1.1.")
    raise malformed("The request line must end in HTTP/1.0 or HTTP/1.1.")


def _parse_fields(block: str) -> dict[str, str]:
    if _FIELDS.fullmatch(block) is None:
        _refuse_fields(block)
    lines = block.split("\r\n")
    if len(lines) > MAX_FIELDS + 1:
        raise GatewayError("headers_too_large", f"The request has more than {MAX_FIELDS} header fields.")
    lines.pop()
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if "_" in name:
            continue  # the environ cannot distinguish X_Y from X-Y
        name, value = name.lower(), value.strip(" \t")
        headers[name] = _join(name, headers[name], value) if name in headers else value
    return headers


def _refuse_fields(block: str) -> NoReturn:
    for line in block.split("\r\n"):
        if _FIELD.fullmatch(line):
            continue
        if "\n" in line:
            raise _lone_line_feed()
        name, colon, _ = line.partition(":")
        if line.startswith((" ", "\t")):
            raise malformed("A header must be on one line; folded header lines are not accepted.")
        if not colon or re.fullmatch(rf"{_TOKEN}+", name.rstrip(" \t")) is None:
            raise malformed("Every header must be a name, a colon and a value; one has no valid name.")
        if name.endswith((" ", "\t")):
            raise malformed("Spaces between a header's name and its colon are not allowed.")
        raise malformed("A header's value contains a control character.")
    raise malformed("The headers cannot be read.")


def _join(name: str, first: str, second: str) -> str:
    if name in _SINGLETONS or name.startswith(_OWN_PREFIX):
        raise GatewayError("malformed_request", f"The header {name} must be given once.", param=name)
    return f"{first}; {second}" if name == "cookie" else f"{first}, {second}"


def _check_host(version: str, host: str | None) -> None:
    if host is None:
        if version == "HTTP/1.1":
            raise GatewayError("malformed_request", "An HTTP/1.1 request must have the header Host.", param="host")
    elif _HOST.fullmatch(host) is None:
        raise GatewayError("malformed_request", "The header Host must be a host name and a port.", param="host")


def _parse_other_target(method: str, target: str, headers: dict[str, str]) -> str:
    if target == "*" and method == "OPTIONS":
        return target
    match = _ABSOLUTE_TARGET.fullmatch(target)
    if match is None:
        raise malformed("The request target must be a path that begins with '/', or a whole http:// address.")
    authority, path, query = match.groups(default="")
    if _HOST.fullmatch(authority) is None:
        raise malformed("The authority in the request target must be a host name and a port.")
    headers["host"] = authority  # RFC 9112 3.2.2: it replaces the Host that was sent
    return f"{path or '/'}{query}"


def parse_framing(head: Head) -> Framing:
    """Determine the body's framing from the headers. Raises `GatewayError` for ambiguous headers."""
    headers = head.headers
    coding, connection = headers.get("transfer-encoding"), headers.get("connection")
    chunked = coding is not None and _parse_chunked(coding, head)
    length = headers.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) <= 18):  # noqa: PLR2004 - below 2**63
        raise GatewayError("malformed_request", "Content-Length must be plain digits.", param="content-length")
    if headers.get("content-encoding", "identity").lower() != "identity":
        message = "Compressed request bodies are not accepted; send the body without a Content-Encoding."
        raise GatewayError("unsupported_media_type", message, param="content-encoding")
    expect = headers.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise GatewayError("malformed_request", "The only supported expectation is 100-continue.", param="expect")
    newer = head.version == "HTTP/1.1"
    expects_continue = expect is not None and newer
    keep_alive = newer if connection is None else _parse_keep_alive(connection, newer=newer)
    return Framing(None if length is None else int(length), chunked, expects_continue, keep_alive)


def _parse_chunked(coding: str, head: Head) -> bool:
    if "content-length" in head.headers:
        message = "A request must not have both Content-Length and Transfer-Encoding."
    elif head.version == "HTTP/1.0":
        message = "HTTP/1.0 has no Transfer-Encoding; send a Content-Length."
    elif coding.lower() != "chunked":
        message = "The only Transfer-Encoding accepted is chunked."
    else:
        return True
    raise GatewayError("malformed_request", message, param="transfer-encoding")


def _parse_keep_alive(connection: str, *, newer: bool) -> bool:
    options = {option.strip(" \t") for option in connection.lower().split(",")}
    return "close" not in options and (newer or "keep-alive" in options)


def parse_chunk_size(line: bytes | bytearray) -> int:
    """Return the chunk size of a chunk line without its CR LF; extensions are ignored."""
    match = _CHUNK_LINE.fullmatch(line)
    if match is None:
        raise malformed("The chunked body is broken: a chunk must begin with its size in hexadecimal digits.")
    return int(match[1], 16)


def check_trailer(line: bytes | bytearray) -> None:
    """Raise unless `line`, without CR LF, is a well-formed header. Trailers are otherwise ignored."""
    if _FIELD.fullmatch(line.decode("latin-1")) is None:
        raise malformed("The chunked body is broken: a line after the last chunk is not a header.")
