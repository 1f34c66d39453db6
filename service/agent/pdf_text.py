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

TOO_LARGE = 3

_MAX_MEMORY_BYTES = 1024 * 1024 * 1024
_END_MARK = b"%%EOF"
_END_WITHIN_BYTES = 1024
_TABLE_MARK = b"startxref"
_NO_TABLE = b"\nstartxref\n0\n%%EOF"


def main() -> int:
    """Print `text`, or the `problem` of a file that cannot be read."""
    os.nice(10)  # runs that stream have priority
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    logging.disable()  # the library reports every oddity of a file
    try:
        report = json.dumps(extract(sys.stdin.buffer.read()), ensure_ascii=False).encode()
    except MemoryError:
        return TOO_LARGE
    sys.stdout.buffer.write(report)
    return 0


def extract(data: bytes) -> dict[str, str]:
    """Return the `text` of a PDF, its pages separated by form feeds, or the `problem` for the sender."""
    # Imported here: the gateway itself needs the path of this program only.
    from pypdf import PdfReader  # noqa: PLC0415
    from pypdf.errors import DependencyError, LimitReachedError  # noqa: PLC0415

    if _TABLE_MARK not in data and _END_MARK in data[-_END_WITHIN_BYTES:]:
        data += _NO_TABLE  # a whole file without a table, as people write them: the library then looks for the objects
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"problem": "it is protected by a password"}
        text = "\f".join(page.extract_text() for page in reader.pages)
    except DependencyError:
        return {"problem": "it is encrypted"}
    except MemoryError:
        raise
    except LimitReachedError as error:
        raise MemoryError from error
    except Exception:  # noqa: BLE001 - a damaged file can fail anywhere in the library
        return {"problem": "it is damaged"}
    if not text.strip():
        return {"problem": "it has no text, as if it were scanned. Send its pages as pictures"}
    return {"text": text.encode(errors="replace").decode()}


if __name__ == "__main__":
    sys.exit(main())
