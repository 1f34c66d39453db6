"""Limit the number of values in a JSON body before it is parsed.

Parsing and validation cannot be interrupted: a body of a million tiny values would stop every other request for
seconds. The values are counted by searches in pieces of the bytes, and other greenlets run in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.core import concurrency
from service.core.errors import GatewayError

#: Enough for 10,000 messages with a tool call each; parsed and validated in well under 50 ms each.
MAX_VALUES = 200_000
#: A table of twice as many names takes three times as long to build as one of these.
MAX_FIELDS = 100_000
_UNCHECKED_BYTES = 256 * 1024  # too small for more values than can be parsed quickly
_PIECE = re.compile(rb".{1,1048576}\\*.?", re.DOTALL)  # does not end within an escape


def check_value_count(body: bytes) -> None:
    """Raise `GatewayError` (`invalid_value`) for a JSON text of more than `MAX_VALUES` strings or other values.

    The fields of objects are limited to `MAX_FIELDS`.
    """
    if len(body) <= _UNCHECKED_BYTES:
        return
    quotes = values = fields = 0
    for piece in _pieces(body):
        concurrency.pause()
        parts = piece.split(b'"')
        outside = b"".join(parts[quotes % 2 :: 2])
        quotes += len(parts) - 1
        values += sum(outside.count(sign) for sign in (b",", b"[", b"{"))
        fields += outside.count(b":")
        _check(max(quotes // 2, values))
        _check(fields, MAX_FIELDS, "fields")


def _pieces(body: bytes) -> Iterator[bytes]:
    """Yield `body` in pieces, without escaped characters."""
    for found in _PIECE.finditer(body):
        piece = found[0]
        yield piece.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in piece else piece


def _check(count: int, limit: int = MAX_VALUES, what: str = "values") -> None:
    if count > limit:
        text = f"The body has more than {limit} {what}. Send fewer messages, fields or array elements."
        raise GatewayError("invalid_value", text)
