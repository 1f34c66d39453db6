"""Join surrogate pairs that providers split over two events; replace invalid characters by U+FFFD."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

import orjson


def load_event(payload: bytes, *split: str) -> Any:
    """Parse the JSON of an event, with U+FFFD for invalid UTF-8 and lone surrogates; `NaN` and `Infinity` are numbers.

    Surrogates in the texts of members named in `split` are left to `Joiner` and `joined`.

    Raises `ValueError` for invalid JSON.
    """
    try:
        return orjson.loads(payload)
    except ValueError:
        text = payload.decode(errors="replace")  # a byte that is not UTF-8 costs its character only
    try:
        return _replaced(json.loads(text, parse_int=orjson.loads), split)  # takes NaN, too
    except RecursionError as error:
        raise ValueError("nested too deep") from error


class Joiner:
    """Joins a surrogate at the end of one text with that at the start of the next; `half` waits for it, or is empty."""

    def __init__(self) -> None:
        self.half = ""

    def join(self, text: str) -> str:
        """Return `text` with a pending surrogate before it, holding back one at its end."""
        if not self.half and (text.isascii() or _is_whole(text)):
            return text
        text, self.half = self.half + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self.half = text[:-1], text[-1]
        return _whole(text)

    def finish(self) -> str:
        """Return the replacement of a surrogate whose other half never came."""
        text, self.half = self.half, ""
        return _whole(text) if text else ""


def joined(texts: Iterable[str]) -> str:
    """Return the pieces of one text with their surrogates joined, or replaced."""
    text = "".join(texts)
    return text if text.isascii() or _is_whole(text) else _whole(text)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _replaced(value: Any, split: Collection[str]) -> Any:
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, list):
        return [_replaced(one, split) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        _whole(name): one if name in split and isinstance(one, str) else _replaced(one, split)
        for name, one in value.items()
    }
