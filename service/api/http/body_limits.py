"""Limit the number of values in a JSON body before it is parsed.

Parsing and validation cannot be interrupted: a body of a million tiny values would stop every other request for
seconds. The values are counted by searches in pieces of the bytes, and other greenlets run in between.
"""

from __future__ import annotations

import re

from service.core import concurrency
from service.core.errors import GatewayError

#: Enough for 10,000 messages with a tool call each; parsed and validated in well under 50 ms each.
MAX_VALUES = 200_000
#: A table of twice as many names takes three times as long to build as one of these.
MAX_FIELDS = 100_000
#: Of a kind that takes several times as long to parse and to write as plain text or a picture.
MAX_ESCAPES = 4_000_000
MAX_BEYOND_ASCII_BYTES = 8 * 1024 * 1024
_UNCHECKED_BYTES = 256 * 1024  # too small for more values than can be parsed quickly
_TOO_MUCH_TEXT = "The body has more than 8 MiB of text that is escaped or not ASCII. Send less text."
_PIECE = re.compile(rb".{1,1048576}\\*.?", re.DOTALL)  # does not end within an escape


def check_value_count(body: bytes) -> None:
    """Raise `GatewayError` (`invalid_value`) for a JSON text of more than `MAX_VALUES` strings or other values.

    The fields of objects are limited to `MAX_FIELDS`. Raises `GatewayError` (`request_too_large`) for too much text
    with escapes or beyond ASCII.
    """
    if len(body) <= _UNCHECKED_BYTES:
        return
    quotes = values = fields = escapes = beyond_ascii = 0
    for found in _PIECE.finditer(body):
        concurrency.pause()
        piece = found[0]
        escapes += piece.count(b"\\")
        beyond_ascii += 0 if piece.isascii() else len(piece)
        if escapes > MAX_ESCAPES or beyond_ascii > MAX_BEYOND_ASCII_BYTES:
            raise GatewayError("request_too_large", _TOO_MUCH_TEXT)
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        outside = b"".join(parts[quotes % 2 :: 2])
        quotes += len(parts) - 1
        values += sum(outside.count(sign) for sign in (b",", b"[", b"{"))
        fields += outside.count(b":")
        _check(max(quotes // 2, values))
        _check(fields, MAX_FIELDS, "fields")


def _check(count: int, limit: int = MAX_VALUES, what: str = "values") -> None:
    if count > limit:
        text = f"The body has more than {limit} {what}. Send fewer messages, fields or array elements."
        raise GatewayError("invalid_value", text)
