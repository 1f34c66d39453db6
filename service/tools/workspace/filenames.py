"""Names of files as one line of Unicode text that can be given back, whatever bytes they are made of."""

from __future__ import annotations

import re

_QUOTED = re.compile(r"\$'(.*)'", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:([ntr\\'])|x([0-9a-f]{2})|u([0-9a-f]{4})|U(00(?:0[0-9a-f]|10)[0-9a-f]{4}))")
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'"}
_LETTERS = {char: f"\\{letter}" for letter, char in _SHORT.items()}
_SURROGATES = range(0xD800, 0xE000)
_BYTES_AT = 0xDC00  # where `surrogateescape` puts bytes that are not UTF-8, each of them 0x80 at least
_NOT_UTF8 = range(_BYTES_AT + 0x80, _BYTES_AT + 0x100)
_ASCII, _TWO_BYTES = range(0x80), range(0x10000)


def to_display(path: str) -> str:
    r"""`path` with each name that is not printable Unicode as a shell would quote it: `$'two\nlines'`, `$'caf\xe9'`.

    No two names are shown alike.
    """
    return "/".join(map(_quote_if_odd, path.split("/")))


def from_display(path: str) -> str:
    """The path that `to_display` shows as `path`; names it does not show so are taken as they are."""
    if "$'" not in path:
        return path
    return "/".join(map(_unquote, path.split("/")))


def _quote_if_odd(name: str) -> str:
    return _quote(name) if not name.isprintable() or _unquote(name) != name else name


def _quote(name: str) -> str:
    return f"$'{''.join(map(_quote_character, name))}'"


def _quote_character(char: str) -> str:
    if char in _LETTERS:
        return _LETTERS[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code in _NOT_UTF8:
        return f"\\x{code - _BYTES_AT:02x}"
    return f"\\x{code:02x}" if code in _ASCII else f"\\u{code:04x}" if code in _TWO_BYTES else f"\\U{code:08x}"


def _unquote(name: str) -> str:
    """What is quoted in `name`; `name` itself if it is not the way that would be quoted, so that no check is evaded."""
    quoted = _QUOTED.fullmatch(name)
    if quoted is None:
        return name
    inner = _ESCAPE.sub(_unescape, quoted[1])
    odd = not inner.isprintable() or _QUOTED.fullmatch(inner) is not None
    return inner if odd and "/" not in inner and _quote(inner) == name else name


def _unescape(escape: re.Match[str]) -> str:
    letter, byte, short, long = escape.groups()
    if letter:
        return _SHORT[letter]
    code = int(byte or short or long, 16)
    if byte and code not in _ASCII:
        return chr(_BYTES_AT + code)
    return escape[0] if code in _SURROGATES else chr(code)
