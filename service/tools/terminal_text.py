"""Convert program output to plain text without terminal control sequences.

Needs only the standard library.
"""

from __future__ import annotations

import re

_LINE_ENDS = re.compile(r"\r\n?|[\v\f]")
# ECMA-48: control strings up to their terminator (titles, links, images), control sequences, other escapes; and
# overstrikes (manual pages).
_SEQUENCES = re.compile(
    r"\x1b(?:\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[PX^_][^\x1b\n]*(?:\x1b\\)?|\[[0-?]*[ -/]*[@-~]?|[ -/]*[0-~]?)"
    r"|[^\n]\x08"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NON_TEXT = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffd]")

_SAMPLE_CHARACTERS = 64 * 1024
_BINARY_SHARE, _BINARY_CHARACTERS = 0.3, 16


def is_binary(text: str) -> bool:
    """Return whether decoded output is binary: over 30 % of its beginning are characters that text does not contain.

    Up to 16 such characters are accepted in any case, for example in a short list of names separated by NUL.
    """
    sample = text[:_SAMPLE_CHARACTERS]
    return len(_NON_TEXT.findall(sample)) > max(_BINARY_SHARE * len(sample), _BINARY_CHARACTERS)


def to_plain_text(text: str) -> str:
    """Remove terminal sequences and control characters except newline and tab, and normalise line ends.

    NUL, a separator (`find -print0`), and a lone carriage return become newlines, so that no text is lost.
    """
    if _CONTROLS.search(text) is None:
        return text
    text = _SEQUENCES.sub("", _LINE_ENDS.sub("\n", text))
    return _CONTROLS.sub("", text.replace("\0", "\n"))
