"""Convert an HTML page to readable text.

Run as a program, `python -I page_text.py URL CHARSET START END`: the page on standard input, a JSON object on standard
output. It runs in a separate process because a page can make the conversion slow and large: the program limits its own
memory, its parent limits its time. Exit status `TOO_LARGE` blames the page; any other non-zero status is a bug here.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

#: Pages with more tags than this are converted without extraction of the main content. (For a million tags extraction
#: takes 40 s and 1.5 GB, plain text 2 s and 0.5 GB.)
MAX_EXTRACTION_TAGS = 50_000

TOO_LARGE = 3

_MAX_MEMORY_BYTES = 1024 * 1024 * 1024
_SKIPPED_ELEMENTS = ("script", "style", "noscript", "template", "head", "svg")


def main(arguments: list[str]) -> int:
    """Convert standard input and print `title`, `text` (START to END) and the full length in `characters`."""
    url, charset, part = arguments[0], arguments[1], slice(int(arguments[2]), int(arguments[3]))
    os.nice(10)  # runs that stream have priority
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    try:
        data = sys.stdin.buffer.read()
        title, text = extract(data.decode(charset, "replace") if charset else data, url)
    except (MemoryError, RecursionError):
        return TOO_LARGE
    json.dump({"title": title, "text": text[part], "characters": len(text)}, sys.stdout)
    return 0


def extract(page: bytes | str, url: str) -> tuple[str, str]:
    """Return the title and the text of `page`, as Markdown with absolute links unless it has too many tags."""
    # Imported here: the gateway itself imports this module but never needs the library.
    import trafilatura  # noqa: PLC0415

    tree: Any = trafilatura.load_html(page)
    if tree is None:
        return "", ""
    title = " ".join((tree.findtext(".//title") or "").split())
    text = None
    tags = page.count(b"<") if isinstance(page, bytes) else page.count("<")
    if tags <= MAX_EXTRACTION_TAGS:
        text = trafilatura.extract(tree, url=url, output_format="markdown", include_links=True, favor_recall=True)
    return title, (text or _all_text(tree)).strip()


def _all_text(tree: Any) -> str:
    for element in list(tree.iter(*_SKIPPED_ELEMENTS)):
        if element.getparent() is not None:
            element.drop_tree()
    pieces = (" ".join(piece.split()) for piece in tree.itertext())
    return "\n".join(piece for piece in pieces if piece)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
