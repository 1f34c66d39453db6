"""The files of the page at `/`: modules, a style sheet, and in `vendor/` the libraries as their makers publish them."""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

_HOME = Path(__file__).parent


class PageFile(NamedTuple):
    """A file of the page; `etag` is its strong validator, in quotation marks."""

    content: bytes
    etag: str


@cache
def load_file(path: str) -> PageFile:
    """Return a file of the page, with its validator; raises `OSError` if there is none."""
    content = (_HOME / path).read_bytes()
    return PageFile(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
