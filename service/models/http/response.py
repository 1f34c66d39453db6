"""Responses of model providers, parsed and read as they arrive. Every failure of a read is a `GatewayError`."""

from __future__ import annotations

from typing import Any, Self

import gevent
from geventhttpclient.connectionpool import ConnectionPool
from geventhttpclient.response import (  # type: ignore[attr-defined]  # the parser has no other public name
    HTTPParseError,
    HTTPResponseParser,
)

from service.core.concurrency import Timeout, wait_for_input
from service.core.errors import GatewayError
from service.core.fetch.decoding import Decoder
from service.models.http.codings import PLAIN, choose_decoder, is_undecided

_BLOCK_BYTES = 32 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_FIRST_FINAL_STATUS = 200
_MAX_DECODED_BYTES = 17 * 1024 * 1024  # of one block, more than an answer may have


class DroppedError(HTTPParseError):
    """The connection was closed before the end of the response."""


class UnansweredError(DroppedError):
    """The connection was closed before anything of the response had come."""


class UpstreamResponse(HTTPResponseParser):
    """A provider's response with its head read, which has the HTTP `status`, and its body still arriving.

    Use it as a context manager. After a complete read the connection returns to the pool; otherwise it is closed. The
    methods that begin with `_on` are called by the parser.
    """

    def __init__(self, sock: Any, pool: ConnectionPool, patience: Timeout) -> None:
        """Read the head, before which interim responses may come. One of more than 64 KiB is refused."""
        super().__init__()
        self._sock = sock  # None once the response does not need it any more
        self._pool = pool
        self._patience = patience
        self.status = 0
        self._headers: dict[str, str] = {}  # the first value of each, by its name in lower case
        self._fields: list[tuple[str, str]] = []  # every header so far
        self._name: list[str] = []  # the parts of a name whose value has not begun
        self._on_header_field = self._name.append
        self._has_head = self._is_complete = False
        self._body = bytearray()
        self._decoder: Decoder | None = None
        try:
            self._read_head()
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._sock is not None:
            self.release()

    def __del__(self) -> None:
        if self._sock is not None:
            self.release()

    def release(self) -> None:
        """Return the connection to the pool after a complete read, otherwise close it. Idempotent."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._is_complete and self.should_keep_alive() and not self.parser_failed():
            self._pool.return_socket(sock)
        else:
            self._pool.release_socket(sock)

    def _on_message_begin(self) -> None:
        """Begin a response, perhaps after an interim one. What follows the final one would be the next one's answer."""
        if self._has_head:
            raise HTTPParseError("bytes follow its end")
        self._fields.clear()

    def _on_status(self, message: str) -> None:
        """Ignore the text beside the status."""

    def _on_header_value(self, part: str) -> None:
        """Take a value, or the next part of one, which there is without a name before it."""
        if self._name:
            self._fields.append(("".join(self._name).lower(), part))
            self._name.clear()
        else:
            name, value = self._fields[-1]
            self._fields[-1] = name, value + part

    def _on_headers_complete(self) -> bool:
        self._headers = dict(reversed(self._fields))
        self.status = self.get_code()
        self._has_head = self.status >= _FIRST_FINAL_STATUS
        return False  # a body may follow

    def _on_body(self, part: bytearray) -> None:
        if not self._has_head:  # not part of the final response, and possibly endless
            raise HTTPParseError("an interim answer has a body")
        self._body += part

    def _on_message_complete(self) -> None:
        self._is_complete = self._has_head

    def _read_head(self) -> None:
        bytes_left = _MAX_HEAD_BYTES
        while not self._has_head:
            if self._sock is None:
                raise DroppedError
            try:
                wait_for_input(self._sock)
                data = self._sock.recv(_BLOCK_BYTES)
            except ConnectionResetError:
                data = b""
            if not data:
                raise UnansweredError if bytes_left == _MAX_HEAD_BYTES else DroppedError
            bytes_left -= len(data)
            if bytes_left < 0:
                raise HTTPParseError("its headers are larger than 64 KiB")
            self.feed(data)
        if self._is_complete:
            self.release()

    @property
    def is_framed(self) -> bool:
        """True if the length of the body is known, so that its end proves that nothing is missing."""
        return self.header("content-length") is not None or self.header("transfer-encoding") is not None

    def header(self, name: str) -> str | None:
        """Return the first value of header `name`, in any case."""
        return self._headers.get(name.lower())

    def read_some(self) -> bytes:
        """Return the bytes of the body that have arrived, waiting for at least one; `b""` at its end.

        A body that is compressed, although that was not asked for, is decompressed. Raises `GatewayError` with
        `provider_timeout` when nothing arrived in time and `provider_error` when the connection was closed before the
        end of the body, or its coding is not supported.
        """
        start = b""
        if self._decoder is None:
            start = self._receive_start()
            self._decoder = choose_decoder(self._headers.get("content-encoding", ""), start)
        if self._decoder is PLAIN:
            return start or self._receive()
        decoded = self._decode(self._decoder, start) if start else b""
        while not decoded and (arrived := self._receive()):
            decoded = self._decode(self._decoder, arrived)
        if not (decoded or self._decoder.is_whole):
            raise read_error(DroppedError())
        return decoded

    def _receive_start(self) -> bytes:
        """Return the first bytes of the body, enough to show whether it is compressed."""
        start = self._receive()
        while start and is_undecided(start) and (more := self._receive()):
            start += more
        return start

    def _decode(self, decoder: Decoder, data: bytes) -> bytes:
        try:
            decoded = decoder.decode(data, _MAX_DECODED_BYTES)
        except ValueError as error:
            self.release()
            raise GatewayError("provider_error", f"The model provider's answer cannot be read: {error}.") from error
        if len(decoded) >= _MAX_DECODED_BYTES:
            self.release()
            raise GatewayError("provider_error", "The model provider sent an answer of more than 16 MiB.")
        return decoded

    def _receive(self) -> bytes:
        body, data = self._body, b""
        try:
            while not body and not self._is_complete:
                if self._sock is None:
                    raise DroppedError
                with self._patience:
                    wait_for_input(self._sock)
                    data = self._sock.recv(_BLOCK_BYTES)
                self.feed(data)
                if self._is_complete:
                    self.release()
        except OSError as error:
            self.release()
            raise read_error(error) from error
        except HTTPParseError as error:  # without data, the connection has ended
            self.release()
            raise read_error(error if data else DroppedError()) from error
        arrived = bytes(body)
        body.clear()
        return arrived

    def read_all(self, limit_bytes: int, within_seconds: float | None = None) -> bytes:
        """Return the rest of the body, cut at `limit_bytes` and after `within_seconds`."""
        parts, length = [], 0
        with gevent.Timeout(within_seconds, exception=False):
            while length < limit_bytes and (data := self.read_some()):
                parts.append(data)
                length += len(data)
        return b"".join(parts)[:limit_bytes]

    def finish(self, within_seconds: float) -> None:
        """Wait this long for the end of the body, so that the connection can be reused."""
        if self._is_complete:
            return
        try:
            with Timeout(within_seconds):
                while self.read_some():
                    pass
        except (GatewayError, TimeoutError):
            pass  # the connection is not reused


def read_error(error: Exception) -> GatewayError:
    """Return the error of a run for one of a connection or of the parser."""
    if isinstance(error, TimeoutError):
        return GatewayError("provider_timeout", "The model provider did not answer in time.")
    if isinstance(error, HTTPParseError) and not isinstance(error, DroppedError):
        return GatewayError("provider_error", f"The model provider's response is not valid HTTP: {error.args[0]}.")
    return GatewayError("provider_error", "The model provider closed the connection before its answer was complete.")
