"""Unique identifiers."""

from __future__ import annotations

import hashlib
import os
import secrets
import string
import time

_CALL_ID_CHARACTERS = string.ascii_letters + string.digits
_UUID_7 = 0x7 << 76 | 0x2 << 62  # its version and variant: RFC 9562, 5.7
_UUID_RANDOM = ~(0xF << 76 | 0x3 << 62)


def new_uuid() -> str:
    """Return a version 7 UUID as a string: the current millisecond and 74 random bits.

    Rows created at about the same time are adjacent in an index, so that a commit touches few of its pages.
    """
    return _to_uuid(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10)))


def uuid_of(milliseconds: int, name: str) -> str:
    """Return a version 7 UUID with bits that depend on `name` alone, the same for each call."""
    return _to_uuid(milliseconds, int.from_bytes(hashlib.blake2b(name.encode(), digest_size=10).digest()))


def _to_uuid(milliseconds: int, bits: int) -> str:
    digits = f"{milliseconds << 80 | bits & _UUID_RANDOM | _UUID_7:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_call_id() -> str:
    """Return an unguessable tool call id: 9 letters and digits, 53 random bits.

    Every provider accepts it; Mistral accepts no other form
    (https://mistralai.github.io/mistral-common/usage/tools/).
    """
    return "".join(secrets.choice(_CALL_ID_CHARACTERS) for _ in range(9))
