"""The files of the page at `/`: modules, a style sheet, and three libraries as their makers publish them."""

from functools import cache
from pathlib import Path


@cache
def load_file(name: str) -> bytes:
    """Return a file of the page; raises `OSError` if there is none."""
    return Path(__file__).with_name(name).read_bytes()
