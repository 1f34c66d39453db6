"""Incremental decoders for gzip, deflate, Brotli and Zstandard bodies, bounded in their output.

urllib3 2.8.0 was tried: it returns 11,881 of 12,000 bytes of a gzip body that lacks its last 9 as a complete body, and
fails on bytes behind the end of Brotli.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_MEMBERS = 64
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_BITS = 23  # RFC 9659 limits the window of HTTP bodies to 8 MiB, so that memory is bounded
_REPLAYED_BYTES = 64 * 1024


class Decoder(Protocol):
    """Decoder of one body; `is_whole` is true at its end, if the coding marks one."""

    @property
    def is_whole(self) -> bool:
        """True if nothing is missing."""
        ...

    def decode(self, data: bytes, limit: int) -> bytes:
        """Decode `data`, the next bytes, to at most `limit` bytes; once that many came, the decoder must be dropped.

        Raises `ValueError` for bytes that are not in the coding.
        """
        ...


def open_decoder(coding: str) -> Decoder | None:
    """Return the decoder for a Content-Encoding in lower case, or `None` for an unknown one."""
    match coding:
        case "" | "identity":
            return _Identity()
        case "gzip" | "x-gzip" | "deflate":
            return _Deflate(is_gzip=coding != "deflate")
        case "br":
            return _Brotli()
        case "zstd":
            return _Zstandard()
    return None


class _Identity:
    is_whole = True

    def decode(self, data: bytes, limit: int) -> bytes:
        return data[:limit]


class _Deflate:
    """gzip, or "deflate": zlib's format as in RFC 9110, or the raw stream that some servers send."""

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
            raise ValueError(f"more than {_MAX_MEMBERS} gzip members")
        return zlib.decompressobj(_GZIP_BITS)


class _Brotli:
    """Brotli. The library refuses input beyond the end, so the input is kept to find the end in a refused piece."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._input = bytearray()
        self._decoded_bytes = 0

    @property
    def is_whole(self) -> bool:
        return not self._input or bool(self._stream.is_finished())

    def decode(self, data: bytes, limit: int) -> bytes:
        if self._stream.is_finished():
            return b""
        try:
            decoded = bytes(self._stream.process(data, output_buffer_limit=limit)[:limit])
        except brotli.error:
            decoded = self._decode_to_end(data, limit)
        self._input += data
        self._decoded_bytes += len(decoded)
        return decoded

    def _decode_to_end(self, data: bytes, limit: int) -> bytes:
        self._stream, decoded = brotli.Decompressor(), bytearray()
        most = self._decoded_bytes + limit
        try:
            for piece in self._pieces(data):
                decoded += self._stream.process(piece, output_buffer_limit=most - len(decoded))
                if self._stream.is_finished() or len(decoded) >= most:
                    break
        except brotli.error as error:
            raise ValueError("not in the stated coding") from error
        return bytes(decoded[self._decoded_bytes : most])  # output per piece depends on how the input is cut

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """The previous input, then `data` byte by byte."""
        for at in range(0, len(self._input), _REPLAYED_BYTES):
            yield bytes(self._input[at : at + _REPLAYED_BYTES])
        for at in range(len(data)):
            yield data[at : at + 1]


class _Zstandard:
    """Zstandard: one frame or several, each of which marks its end."""

    def __init__(self) -> None:
        self._stream = self._next_frame()
        self._frames = 1
        self._has_input = False

    @property
    def is_whole(self) -> bool:
        return self._stream.eof or not self._has_input

    def decode(self, data: bytes, limit: int) -> bytes:
        self._has_input = True
        decoded = b""
        try:
            if not self._stream.eof:
                decoded = self._stream.decompress(data, limit)
                data = self._stream.unused_data
            while len(decoded) < limit and self._stream.eof and data.startswith(_ZSTD_MAGIC):
                self._frames += 1
                if self._frames > _MAX_MEMBERS:
                    raise ValueError(f"more than {_MAX_MEMBERS} Zstandard frames")
                self._stream = self._next_frame()
                decoded += self._stream.decompress(data, limit - len(decoded))
                data = self._stream.unused_data
        except zstd.ZstdError as error:
            raise ValueError("not in the stated coding") from error
        return decoded

    @staticmethod
    def _next_frame() -> zstd.ZstdDecompressor:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_BITS})
