r"""Remove a byte order mark from JSON and replace lone surrogates, which orjson refuses.

JavaScript and Python encode a string that was cut inside a surrogate pair with an escape such as `\ud83d`; others
encode each surrogate in three bytes (CESU-8).
"""

from __future__ import annotations

import re

from service.core import concurrency

# A pair of escapes or a single one; the literal prefix makes the search fast.
_SURROGATES = re.compile(rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})")
_ENCODED_SURROGATES = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]|\xed[\xa0-\xbf][\x80-\xbf]")
_BOM = b"\xef\xbb\xbf"
_REPLACEMENT = rb"\ufffd"
_ESCAPE_BYTES = len(_REPLACEMENT)
_BACKSLASH = 0x5C
_PAIR_BYTES = 2 * _ESCAPE_BYTES
_WINDOW_BYTES = 16 * 1024


def repair_json(text: bytes) -> bytearray:
    """Return `text` without a byte order mark, with U+FFFD for lone surrogates and with pairs joined."""
    text = text.removeprefix(_BOM)
    if b"\xed" in text:
        text = _ENCODED_SURROGATES.sub(_encode_whole, text)
    return replace_lone_surrogates(text)


def replace_lone_surrogates(text: bytes) -> bytearray:
    """Replace escapes of lone surrogates in `text` by U+FFFD; other greenlets run after each window of the text."""
    result = bytearray(text)
    position = 0
    while position < len(text):
        window_end = position + _WINDOW_BYTES
        position = window_end
        for match in _SURROGATES.finditer(text, window_end - _WINDOW_BYTES, window_end + _PAIR_BYTES):
            if match.start() >= window_end:
                break
            _repair(result, text, *match.span())
            position = max(window_end, match.end())
        concurrency.pause()
    return result


def _encode_whole(found: re.Match[bytes]) -> bytes:
    surrogates = found[0].decode("utf-8", "surrogatepass")
    return surrogates.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _repair(result: bytearray, text: bytes, start: int, end: int) -> None:
    is_pair = end - start == _PAIR_BYTES
    if _is_escaped(text, start):  # an escaped backslash and letters; only the second escape of a pair is one
        if is_pair:
            result[end - _ESCAPE_BYTES : end] = _REPLACEMENT
    elif not is_pair:
        result[start:end] = _REPLACEMENT


def _is_escaped(text: bytes, position: int) -> bool:
    """Return True if the character at `position` follows an odd number of backslashes."""
    start = position
    while start > 0 and text[start - 1] == _BACKSLASH:
        start -= 1
    return (position - start) % 2 == 1
