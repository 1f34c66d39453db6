"""Turn an HTML page into text that reads well.

Run as a program, `python -I page_text.py URL CHARSET START END`: the page on standard input, a JSON object on standard
output. It is a process of its own because a page can make this work long and large: it bounds its own memory,
whoever starts it bounds its time. The exit status `TOO_LARGE` blames the page, any other but 0 this program.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

#: Beyond this many tags a page is not looked at for what matters in it; all of its text is taken. (A million take the
#: careful way 40 s and 1.5 GB, the plain one 2 s and 0.5 GB.)
MAX_CAREFUL_TAGS = 50_000

TOO_LARGE = 3

_MAX_MEMORY_BYTES = 1024 * 1024 * 1024
_UNREAD = ("script", "style", "noscript", "template", "head", "svg")


def main(arguments: list[str]) -> int:
    """Read, convert, tell `title`, `text` (from START to END) and its whole length in `characters`."""
    url, charset, part = arguments[0], arguments[1], slice(int(arguments[2]), int(arguments[3]))
    os.nice(10)  # whoever waits is not the only one who is served
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    try:
        data = sys.stdin.buffer.read()
        title, text = extract(data.decode(charset, "replace") if charset else data, url)
    except (MemoryError, RecursionError):
        return TOO_LARGE
    json.dump({"title": title, "text": text[part], "characters": len(text)}, sys.stdout)
    return 0


def extract(page: bytes | str, url: str) -> tuple[str, str]:
    """The title and the text of `page`, as Markdown where it has not too many tags; its links are told in full."""
    # Only this process pays for the import.
    import trafilatura  # noqa: PLC0415

    tree: Any = trafilatura.load_html(page)
    if tree is None:
        return "", ""
    title = " ".join((tree.findtext(".//title") or "").split())
    text = None
    tags = page.count(b"<") if isinstance(page, bytes) else page.count("<")
    if tags <= MAX_CAREFUL_TAGS:
        text = trafilatura.extract(tree, url=url, output_format="markdown", include_links=True, favor_recall=True)
    return title, (text or _all_text(tree)).strip()


def _all_text(tree: Any) -> str:
    for element in list(tree.iter(*_UNREAD)):
        if element.getparent() is not None:
            element.drop_tree()
    pieces = (" ".join(piece.split()) for piece in tree.itertext())
    return "\n".join(piece for piece in pieces if piece)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
