"""Names that nobody else has."""

from __future__ import annotations

import os
import secrets
import string
import time

_CALL_ID_CHARACTERS = string.ascii_letters + string.digits
_UUID_7 = 0x7 << 76 | 0x2 << 62  # its version and variant: RFC 9562, 5.7
_UUID_RANDOM = ~(0xF << 76 | 0x3 << 62)


def new_uuid() -> str:
    """A UUID of version 7 as text: the millisecond it was made in, and 74 random bits.

    What is made at about the same time stands side by side in an index, so that a commit touches few of its pages.
    """
    milliseconds, bits = time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10))
    digits = f"{milliseconds << 80 | bits & _UUID_RANDOM | _UUID_7:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_call_id() -> str:
    """A name for a call of a tool that nobody can guess: 9 letters and digits, 53 random bits.

    Every provider takes it; Mistral takes no other form
    (https://mistralai.github.io/mistral-common/usage/tools/).
    """
    return "".join(secrets.choice(_CALL_ID_CHARACTERS) for _ in range(9))
