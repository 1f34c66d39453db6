"""HTTP for untrusted URLs, restricted to public hosts (an SSRF guard).

A name is resolved once, its addresses are checked, and the connection is made to a checked address; each redirect is
checked like the first URL. Neither a name that resolves to an internal address, nor one that resolves differently the
second time (DNS rebinding), nor a redirect can reach this machine or its network. No proxy is used, because it would
resolve the name again.

`http.client` reads the responses from the pinned socket. urllib3 2.8.0 was tried in its place on the same socket: only
the assembly of the request head went (6 lines), because the address checks, the overall deadline and the limit on
bytes received remain, and its decoders fail the tests (see `decoding.py`).
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from service import __version__
from service.core.concurrency import Deadline, deadline, sleep
from service.core.dataclass import record
from service.core.fetch.addresses import AddressPolicy, is_address, is_public
from service.core.fetch.decoding import open_decoder
from service.core.fetch.errors import FetchError
from service.core.fetch.resolver import Resolver, SystemResolver
from service.core.fetch.urls import Target, parse_url, resolve_redirect

_BLOCK_BYTES = 64 * 1024
_MAX_ADDRESSES = 4
_MAX_HEAD_BYTES = 256 * 1024  # interim responses included
_MAX_TYPE_CHARACTERS = 1024
_BYTES_PER_BODY_BYTE = 2  # allowance for framing: small chunks, trailers
_BUSY_SECONDS = 0.005
_PAUSE_SECONDS = 0.0001
_REDIRECTS = (301, 302, 303, 307, 308)


@record
class FetchLimits:
    """Limits of one fetch, redirects included; `max_bytes` limits the body, and its framing to as much again."""

    max_bytes: int
    timeout_seconds: float
    max_redirects: int = 5


class PublicHttpClient:
    """Fetches untrusted URLs within `policy`.

    `tls` is the context for certificate verification; by default the system's authorities are trusted.
    """

    def __init__(
        self, policy: AddressPolicy, *, resolver: Resolver | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._policy = policy
        self._resolver = resolver or SystemResolver()
        self._tls = tls

    def open(self, url: str, limits: FetchLimits, *, accept: str = "*/*") -> PublicResponse:
        """GET `url`, following redirects, and return the response, of any status, once its head has arrived.

        Raises `FetchError` when a URL on the way is not permitted, or its host does not answer in time or in HTTP.
        """
        give_up_at = time.monotonic() + limits.timeout_seconds
        with _report_errors(give_up_at):
            for _ in range(limits.max_redirects + 1):
                target = parse_url(url)
                with ExitStack() as stack:
                    connection = stack.enter_context(self._connect(target, give_up_at))
                    response = _exchange(connection, target, f"Accept: {accept}")
                    location = response.headers.get("location") if response.status in _REDIRECTS else None
                    if location is None:
                        stack.pop_all()
                        return PublicResponse(target.url, response, connection, limits.max_bytes)
                url = resolve_redirect(target.url, location)
        raise FetchError(f"more than {limits.max_redirects} redirects")

    def post(self, url: str, limits: FetchLimits, headers: Mapping[str, str], body: bytes) -> int:
        """POST `body` to `url` and return the status. Redirects are not followed, and no body is read.

        `headers` are ASCII. Raises `FetchError` as `open` does.
        """
        give_up_at = time.monotonic() + limits.timeout_seconds
        with _report_errors(give_up_at):
            target = parse_url(url)
            lines = (*(f"{name}: {value}" for name, value in headers.items()), f"Content-Length: {len(body)}")
            with self._connect(target, give_up_at) as connection:
                return _exchange(connection, target, *lines, method="POST", body=body).status

    def check(self, url: str) -> None:
        """Raise `FetchError` for a URL that is malformed, or that is an address to which no connection is made."""
        target = parse_url(url)
        if not self._policy.permits_host(target.host):
            raise FetchError(f"{target.host} is not among the allowed hosts")
        if is_address(target.host) and not self._policy.permits(target.host, target.port):
            raise FetchError(f"{target.authority} is not a public address with an allowed port")

    def _connect(self, target: Target, give_up_at: float) -> _Connection:
        addresses = self._addresses(target)
        failure: OSError | None = None
        for index, address in enumerate(addresses):
            seconds = (give_up_at - time.monotonic()) / (len(addresses) - index)
            try:
                plain = socket.create_connection((address, target.port), timeout=max(seconds, 0.001))
            except OSError as error:
                failure = error
                continue
            connection = _Connection(plain, give_up_at)
            if target.scheme == "https":
                connection.secure(self._tls_context(), target.host)
            return connection
        raise FetchError(f"{target.host} cannot be reached: {_reason(failure)}")

    def _addresses(self, target: Target) -> list[str]:
        if not self._policy.permits_host(target.host):
            raise FetchError(f"{target.host} is not among the allowed hosts")
        try:
            found = self._resolver(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise FetchError(f"the name {target.host} cannot be resolved: {_reason(error)}") from error
        permitted = [address for address in found if self._policy.permits(address, target.port)]
        if not permitted and any(address in self._policy.denied_hosts for address in found):
            raise FetchError(f"{target.host} is not among the allowed hosts")
        if not permitted and any(map(is_public, found)):
            ports = " and ".join(map(str, sorted(self._policy.ports)))
            raise FetchError(f"port {target.port} of {target.host} is not allowed; the allowed ports are {ports}")
        if not permitted:
            raise FetchError(f"{target.host} is not a public address")
        return permitted[:_MAX_ADDRESSES]

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class PublicResponse:
    """A response whose head has arrived and whose body has not been read. Use it as a context manager.

    `url` is the final URL, after redirects; `content_type` is in lower case and without parameters.
    """

    def __init__(self, url: str, response: http.client.HTTPResponse, connection: _Connection, max_bytes: int) -> None:
        self.url = url
        self.status = response.status
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        # Parsing takes time that grows with the square of the length: seconds for what fits into a head.
        is_short = len(response.headers.get("content-type", "")) <= _MAX_TYPE_CHARACTERS
        self.charset = response.headers.get_content_charset() if is_short else None
        self._encoding = response.headers.get("content-encoding", "identity").strip().lower()
        self._response = response
        self._connection = connection
        self._max_bytes = max_bytes
        connection.expect(max_bytes * _BYTES_PER_BODY_BYTE)

    def read_body(self) -> tuple[bytes, bool]:
        """Read the body up to the limit; return it and whether it is complete.

        The request does not ask for compression; a body that is compressed anyway is limited in its decoded size.

        Raises `FetchError` when it does not arrive in time, is incomplete, or has an unknown encoding.
        """
        decoder = open_decoder(self._encoding)
        if decoder is None:
            raise FetchError(f"the response has the unsupported Content-Encoding {self._encoding[:40]!r}")
        announced, received = self._response.length, 0
        body = bytearray()
        with _report_errors(self._connection.give_up_at):
            while len(body) <= self._max_bytes and (data := self._response.read1(_BLOCK_BYTES)):
                received += len(data)
                body += decoder.decode(data, self._max_bytes + 1 - len(body))
        whole = len(body) <= self._max_bytes
        if whole and (received < (announced or 0) or not decoder.is_whole):
            raise FetchError("the connection was closed before the response was complete")
        return bytes(body[: self._max_bytes]), whole

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()


class _Connection:
    """A connected socket with one deadline for all its operations, for `http.client` to read from.

    It receives at most the bytes it was set to `expect`, at first a head, and regularly yields to other greenlets.
    """

    def __init__(self, plain: socket.socket, give_up_at: float) -> None:
        self.give_up_at = give_up_at
        self._socket = plain
        self._bytes_left = _MAX_HEAD_BYTES
        self._paused_at = time.monotonic()

    def expect(self, count: int) -> None:
        """Allow `count` more bytes to be received."""
        self._bytes_left += count

    def secure(self, tls: ssl.SSLContext, host: str) -> None:
        """Start TLS and verify that the peer is `host`; closes the connection on failure."""
        try:
            self._socket = tls.wrap_socket(self._timed(), server_hostname=host)
        except BaseException:
            self.close()
            raise

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        self._timed().sendall(data)

    def recv_into(self, buffer: Any) -> int:
        """Receive at least one byte; 0 at the end. Raises `FetchError` beyond the allowance."""
        if time.monotonic() - self._paused_at > _BUSY_SECONDS:
            # recv does not yield while bytes are available, and http.client may search millions of them for one line.
            sleep(_PAUSE_SECONDS)
            self._paused_at = time.monotonic()
        received = self._timed().recv_into(buffer)
        self._bytes_left -= received
        if self._bytes_left < 0:
            raise FetchError("the response is mostly framing: it exceeds twice the size allowed for its content")
        return received

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader of the received bytes; closing it leaves the connection open."""
        assert mode == "rb"  # noqa: S101 - the only mode http.client uses
        return io.BufferedReader(_Incoming(self))

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _timed(self) -> socket.socket:
        seconds = self.give_up_at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self._socket.settimeout(seconds)
        return self._socket


class _Incoming(io.RawIOBase):
    """The receiving side of a connection as a raw stream."""

    def __init__(self, connection: _Connection) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.recv_into(buffer)


@contextmanager
def _report_errors(give_up_at: float) -> Iterator[None]:
    """Raise any failure in the block, the end of its time included, as a `FetchError`.

    A resolver and a TLS handshake ignore the socket's timeout, so a deadline surrounds them.
    """
    try:
        with deadline(max(give_up_at - time.monotonic(), 0)):
            yield
    except Deadline:
        if time.monotonic() < give_up_at:
            raise  # an outer deadline
        raise FetchError("no complete response within the time limit") from None
    except TimeoutError:
        raise FetchError("no complete response within the time limit") from None
    except ssl.SSLError as error:
        raise FetchError(f"the TLS connection failed: {error.reason or _reason(error)}") from error
    except OSError as error:
        raise FetchError(f"the connection failed: {_reason(error)}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise FetchError("the response is not valid HTTP or is incomplete") from error


def _exchange(
    connection: _Connection, target: Target, *lines: str, method: str = "GET", body: bytes = b""
) -> http.client.HTTPResponse:
    head = (
        f"{method} {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        f"User-Agent: openclaw-gateway/{__version__}",
        *lines,
        "Accept-Encoding: identity",
        "Connection: close",
    )
    connection.sendall("".join(f"{line}\r\n" for line in (*head, "")).encode("ascii") + body)
    as_socket: Any = connection
    response = http.client.HTTPResponse(as_socket, method=method)
    response.begin()
    return response


def _reason(error: Exception | None) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
