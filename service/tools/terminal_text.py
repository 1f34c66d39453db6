"""What programs print, as plain text: models, transcripts and clients get characters, not orders to a screen.

Needs only the standard library.
"""

from __future__ import annotations

import re

_LINE_ENDS = re.compile(r"\r\n?|[\v\f]")
# ECMA-48: strings to the terminal up to their end (titles, links, pictures), control sequences, other escapes; and what
# a printer would strike over (manual pages).
_SEQUENCES = re.compile(
    r"\x1b(?:\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[PX^_][^\x1b\n]*(?:\x1b\\)?|\[[0-?]*[ -/]*[@-~]?|[ -/]*[0-~]?)"
    r"|[^\n]\x08"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ODD = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffd]")

_JUDGED_CHARACTERS = 64 * 1024
_BINARY_SHARE, _BINARY_CHARACTERS = 0.3, 16


def is_binary(text: str) -> bool:
    """Whether bytes read as `text` are none: more than three in ten characters of its beginning stand in no text.

    With 16 of them at most it is text, however short: names that NUL separates, for example.
    """
    judged = text[:_JUDGED_CHARACTERS]
    return len(_ODD.findall(judged)) > max(_BINARY_SHARE * len(judged), _BINARY_CHARACTERS)


def to_plain_text(text: str) -> str:
    """`text` without terminal sequences and control characters but newline and tab, all line ends newlines.

    NUL, which separates (`find -print0`), becomes a newline; a lone carriage return, too, so that nothing is lost.
    """
    if _CONTROLS.search(text) is None:
        return text
    text = _SEQUENCES.sub("", _LINE_ENDS.sub("\n", text))
    return _CONTROLS.sub("", text.replace("\0", "\n"))
