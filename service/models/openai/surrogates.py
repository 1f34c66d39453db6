"""Texts of providers that count in UTF-16, where a character may be in two halves, and those in two events.

Strict JSON knows no half of a character; what leaves the gateway has none either.
"""

from __future__ import annotations

import json
from typing import Any

import orjson


def load_event(payload: bytes) -> Any:
    """The JSON of an event, with U+FFFD for halves of characters, but for those in a `content`, which `Joiner` knows.

    Raises `ValueError` for what is no JSON.
    """
    try:
        return orjson.loads(payload)
    except ValueError:
        if b"\\ud" not in payload.lower():
            raise
    try:
        return _mended(json.loads(payload, parse_int=orjson.loads))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


class Joiner:
    """Puts the halves together that one text ends and the next begins with."""

    def __init__(self) -> None:
        self._half = ""

    def join(self, text: str) -> str:
        """`text` after what was kept of those before it; a half at its end is kept in turn."""
        if not self._half and (text.isascii() or _is_whole(text)):
            return text
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _whole(text)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mended(told: Any) -> Any:
    if isinstance(told, str):
        return _whole(told)
    if isinstance(told, list):
        return [_mended(one) for one in told]
    if not isinstance(told, dict):
        return told
    return {
        _whole(name): one if name == "content" and isinstance(one, str) else _mended(one) for name, one in told.items()
    }
