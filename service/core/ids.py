"""Unique identifiers."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import string
import time

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_CALL_ID_CHARACTERS = string.ascii_letters + string.digits
#: Its version and variant: RFC 9562, 5.7.
_VERSION, _VARIANT = 0x7000, 0x8000


def new_uuid() -> str:
    """Return a version 7 UUID as a string: the current millisecond and 74 random bits.

    Rows created at about the same time are adjacent in an index, so that a commit touches few of its pages.
    """
    return _to_uuid(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10)))


def uuid_of(milliseconds: int, name: str) -> str:
    """Return a version 7 UUID with bits that depend on `name` alone, the same for each call."""
    return _to_uuid(milliseconds, int.from_bytes(hashlib.blake2b(name.encode(), digest_size=10).digest()))


def with_time(uuid: str, milliseconds: int) -> str:
    """Return a version 7 UUID with its time replaced, so that its order is that of the record it names."""
    return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}{uuid[13:]}"


def time_of(uuid: str) -> int | None:
    """Return the milliseconds of a version 7 UUID; `None` for any other text."""
    return int(uuid[:8] + uuid[9:13], 16) if _UUID7.fullmatch(uuid) else None


def _to_uuid(milliseconds: int, bits: int) -> str:
    first, second = milliseconds >> 16, milliseconds & 0xFFFF
    third, fourth = _VERSION | bits >> 68, _VARIANT | bits >> 54 & 0x3FFF
    return f"{first:08x}-{second:04x}-{third:x}-{fourth:x}-{bits & 0xFFFFFFFFFFFF:012x}"


def new_call_id() -> str:
    """Return an unguessable tool call id: 9 letters and digits, 53 random bits.

    Every provider accepts it; Mistral accepts no other form
    (https://mistralai.github.io/mistral-common/usage/tools/).
    """
    return "".join(secrets.choice(_CALL_ID_CHARACTERS) for _ in range(9))
