"""Bodies that come compressed: gzip, deflate and Brotli, taken apart as they come and never beyond a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli

_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_MEMBERS = 64
_REPLAYED_BYTES = 64 * 1024


class Decoder(Protocol):
    """What one body is decoded with; `is_whole` says whether its end has come, as far as the coding knows one."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        ...

    def decode(self, data: bytes, limit: int) -> bytes:
        """What `data`, the next bytes, stand for, `limit` bytes at most: after that many it is not used any more.

        Raises `ValueError` for what is not in the coding.
        """
        ...


def open_decoder(coding: str) -> Decoder | None:
    """The decoder for a body whose Content-Encoding, in lower case, is `coding`; `None` for one that is not known."""
    match coding:
        case "" | "identity":
            return _Identity()
        case "gzip" | "x-gzip" | "deflate":
            return _Deflate(is_gzip=coding != "deflate")
        case "br":
            return _Brotli()
    return None


class _Identity:
    is_whole = True

    def decode(self, data: bytes, limit: int) -> bytes:
        return data[:limit]


class _Deflate:
    """gzip, or "deflate": zlib's format as RFC 9110 has it, or the bare stream that some send."""

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._stream: zlib._Decompress | None = None
        self._members = 1

    @property
    def is_whole(self) -> bool:
        return self._stream is None or self._stream.eof

    def decode(self, data: bytes, limit: int) -> bytes:
        if self._stream is None:
            is_zlib = data[0] & 0x0F == zlib.DEFLATED
            self._stream = zlib.decompressobj(_GZIP_BITS if self._is_gzip else _ZLIB_BITS if is_zlib else _RAW_BITS)
        try:
            decoded = self._stream.decompress(data, limit)
            while len(decoded) < limit and self._is_gzip and self._stream.unused_data.startswith(_GZIP_MAGIC):
                rest, self._stream = self._stream.unused_data, self._next_member()
                decoded += self._stream.decompress(rest, limit - len(decoded))
        except zlib.error as error:
            raise ValueError(f"not in the stated coding: {error}") from error
        return decoded

    def _next_member(self) -> zlib._Decompress:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise ValueError(f"more than {_MAX_MEMBERS} parts")
        return zlib.decompressobj(_GZIP_BITS)


class _Brotli:
    """The library takes no bytes beyond the end: what has come is kept, to look for the end in what it refuses."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._taken = bytearray()
        self._told_bytes = 0

    @property
    def is_whole(self) -> bool:
        return not self._taken or bool(self._stream.is_finished())

    def decode(self, data: bytes, limit: int) -> bytes:
        if self._stream.is_finished():
            return b""
        try:
            decoded = bytes(self._stream.process(data, output_buffer_limit=limit)[:limit])
        except brotli.error:
            decoded = self._decode_to_end(data, limit)
        self._taken += data
        self._told_bytes += len(decoded)
        return decoded

    def _decode_to_end(self, data: bytes, limit: int) -> bytes:
        self._stream, decoded = brotli.Decompressor(), bytearray()
        most = self._told_bytes + limit
        try:
            for piece in self._pieces(data):
                decoded += self._stream.process(piece, output_buffer_limit=most - len(decoded))
                if self._stream.is_finished() or len(decoded) >= most:
                    break
        except brotli.error as error:
            raise ValueError("not in the stated coding") from error
        return bytes(decoded[self._told_bytes : most])  # how much comes with which piece depends on how it is cut

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """What has come before, and then `data` byte by byte."""
        for at in range(0, len(self._taken), _REPLAYED_BYTES):
            yield bytes(self._taken[at : at + _REPLAYED_BYTES])
        for at in range(len(data)):
            yield data[at : at + 1]
