"""Names of files as one line of printable text."""

from __future__ import annotations

_SURROGATES = range(0xD800, 0xE000)  # how bytes that are not UTF-8 arrive


def to_display(path: str) -> str:
    r"""Return `path` with U+FFFD for bytes that are not UTF-8, and other unprintable characters escaped (`\n`).

    It does not lead back to a file with such a name.
    """
    return path if path.isprintable() else "".join(map(_shown, path))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return "\N{REPLACEMENT CHARACTER}" if ord(character) in _SURROGATES else character.encode("unicode_escape").decode()
