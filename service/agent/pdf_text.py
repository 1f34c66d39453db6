"""Extract the text of a PDF.

Run as a program, `python -I pdf_text.py`: the file on standard input, a JSON object on standard output. It runs in a
separate process because a file can make the extraction slow and large: the program limits its own memory, its parent
limits its time. Exit status `TOO_LARGE` blames the file; any other non-zero status is a bug here.
"""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import sys
from typing import Any

TOO_LARGE = 3

_MAX_MEMORY_BYTES = 1024 * 1024 * 1024
_END_MARK = b"%%EOF"
_END_WITHIN_BYTES = 1024
_PICTURES = "[This page has pictures, and no text.]"
_TABLE_MARK = b"startxref"
_NO_TABLE = b"\nstartxref\n0\n%%EOF"
_UNKNOWN = "\ufffd"


def main() -> int:
    """Print `text`, or the `problem` of a file that cannot be read."""
    os.nice(10)  # runs that stream have priority
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    try:
        report = json.dumps(extract(sys.stdin.buffer.read()), ensure_ascii=False).encode()
    except MemoryError:
        return TOO_LARGE
    sys.stdout.buffer.write(report)
    return 0


class _Faults(logging.Handler):
    """Counts the streams that the library finds damaged; it reports them only to the log, and goes on without them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count the warning."""
        del record
        self.count += 1


def extract(data: bytes) -> dict[str, str]:
    """Return the `text` of a PDF, its pages separated by form feeds, or the `problem` for the sender.

    A page with nothing but pictures says so, if others have text.
    """
    # Imported here: the gateway itself needs the path of this program only.
    from pypdf.errors import DependencyError, LimitReachedError  # noqa: PLC0415

    if _TABLE_MARK not in data and _END_MARK in data[-_END_WITHIN_BYTES:]:
        data += _NO_TABLE  # a whole file without a table, as people write them: the library then looks for the objects
    try:
        return _extract_pages(data)
    except DependencyError:
        return {"problem": "it is encrypted"}
    except MemoryError:
        raise
    except LimitReachedError as error:
        raise MemoryError from error
    except Exception:  # noqa: BLE001 - a damaged file can fail anywhere in the library
        return {"problem": "it is damaged"}


def _extract_pages(data: bytes) -> dict[str, str]:
    from pypdf import PdfReader  # noqa: PLC0415

    faults = _watch_faults()
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        return {"problem": "it is protected by a password"}
    texts = []
    for number, page in enumerate(reader.pages, 1):
        texts.append(page.extract_text())
        if faults.count or _is_lost(page):
            return {"problem": f"its page {number} is damaged"}
    if len(texts) < _page_count(reader):
        return {"problem": "it is damaged: pages are missing"}
    whole = "\f".join(texts)
    visible = "".join(whole.split())
    if not visible:
        return {"problem": "it has no text, as if it were scanned. Send its pages as pictures"}
    if visible.count(_UNKNOWN) > len(visible) // 2:
        return {"problem": "its fonts do not say which characters they show. Send its pages as pictures"}
    shown = (
        text if text.strip() or not len(page.images) else _PICTURES
        for text, page in zip(texts, reader.pages, strict=True)
    )
    return {"text": "\f".join(shown).encode(errors="replace").decode()}


def _watch_faults() -> _Faults:
    """Return the count of the library's warnings about streams, and silence all that it says about a file."""
    faults = _Faults()
    library = logging.getLogger("pypdf")
    library.propagate, library.handlers = False, [logging.NullHandler()]
    logging.getLogger("pypdf.filters").handlers = [faults]
    return faults


def _is_lost(page: Any) -> bool:
    """Return True if a page has contents that are not in the file."""
    if "/Contents" not in page:
        return False
    contents = page["/Contents"]
    parts = contents if isinstance(contents, list) else [contents]
    return any(part is None or part.get_object() is None for part in parts)


def _page_count(reader: Any) -> int:
    """Return the number of pages that the file says it has, 0 if it does not."""
    return int(reader.root_object["/Pages"].get("/Count", 0))


if __name__ == "__main__":
    sys.exit(main())
