"""Names that nobody else has."""

from __future__ import annotations

import os


def new_uuid() -> str:
    """A random UUID of version 4 as text; the package `uuid` takes several times as long to say the same."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
