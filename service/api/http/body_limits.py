"""Limit the number of values in a JSON body before it is parsed.

Parsing and validation cannot be interrupted: a body of a million tiny values would stop every other request for
seconds. The values are counted by searches in the bytes, and other greenlets run in between.
"""

from __future__ import annotations

from service.core import concurrency
from service.core.errors import GatewayError

#: Enough for 10,000 messages with a tool call each; parsed and validated in well under 50 ms each.
MAX_VALUES = 200_000
#: A table of twice as many names takes three times as long to build as one of these.
MAX_FIELDS = 100_000
_UNCHECKED_BYTES = 256 * 1024  # too small for more values than can be parsed quickly


def check_value_count(body: bytes) -> None:
    """Raise `GatewayError` (`invalid_value`) for a JSON text of more than `MAX_VALUES` strings or other values.

    The fields of objects are limited to `MAX_FIELDS`.
    """
    if len(body) <= _UNCHECKED_BYTES:
        return
    strings = (body.count(b'"') - body.count(b'\\"')) // 2
    _check(strings)
    concurrency.pause()
    unescaped = body.replace(b"\\\\", b"") if b"\\\\" in body else body
    concurrency.pause()
    pieces = unescaped.replace(b'\\"', b"").split(b'"', 4 * MAX_VALUES)
    concurrency.pause()
    structure = b"".join(pieces[::2])  # what is outside strings
    _check(sum(structure.count(sign) for sign in (b",", b"[", b"{")))
    concurrency.pause()
    _check(structure.count(b":"), MAX_FIELDS, "fields")


def _check(count: int, limit: int = MAX_VALUES, what: str = "values") -> None:
    if count > limit:
        text = f"The body has more than {limit} {what}. Send fewer messages, fields or array elements."
        raise GatewayError("invalid_value", text)
