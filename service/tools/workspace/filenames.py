"""Display file names as one line of printable text."""

from __future__ import annotations

_SURROGATES = range(0xD800, 0xE000)  # Python's stand-ins for bytes that are not UTF-8


def to_display(path: str) -> str:
    r"""Return `path` with U+FFFD for bytes that are not UTF-8, and other unprintable characters escaped (`\n`).

    The result is for display only and cannot be used to open the file.
    """
    return path if path.isprintable() else "".join(map(_escape, path))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return "\N{REPLACEMENT CHARACTER}" if ord(character) in _SURROGATES else character.encode("unicode_escape").decode()
