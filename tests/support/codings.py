"""Zstandard as the Python in use offers it."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def zstd_compress(data: bytes) -> bytes:
    """Compress `data` in one frame."""
    return zstd.compress(data)
