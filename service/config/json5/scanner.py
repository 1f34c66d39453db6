"""Scan a JSON5 text for the positions of its values, members, keys and commas.

The text must be valid JSON5; errors are not detected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pyjson5

_TOKEN = re.compile(
    r"""(?P<space>[\s\ufeff]+)
    | (?P<comment>//[^\n\r\u2028\u2029]* | /\*.*?\*/)
    | (?P<mark>[{}\[\]:,])
    | (?P<word>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | [^\s\ufeff{}\[\]:,"'/]+)""",
    re.VERBOSE | re.DOTALL,
)

#: Spaces and complete comments up to the end of a line.
REST_OF_LINE = re.compile(r"(?:[^\S\n\r]|/\*(?:(?!\*/)[^\n\r])*\*/)*(?://[^\n\r\u2028\u2029]*)?(?=[\n\r]|\Z)")


class Token(NamedTuple):
    """A mark, or a key or plain value."""

    kind: Literal["mark", "word"]
    start: int
    end: int


@dataclass(slots=True)
class Value:
    """The position of a value, and the members of an object or list (`kind` is its opening bracket)."""

    start: int
    end: int = 0
    kind: str = ""
    members: list[Member] = field(default_factory=list)


@dataclass(slots=True)
class Member:
    """A member of an object or list. `start` is the start of its key, else of its value; `comma` the one after it."""

    key: str | int
    start: int
    value: Value
    comma: int | None = None

    @property
    def end(self) -> int:
        """The end of the member, its comma included."""
        return self.value.end if self.comma is None else self.comma + 1


def scan(text: str) -> Value:
    """Return the top value of a JSON5 text."""
    return _Scanner(text).value()


def tokens_of(text: str) -> Iterator[Token]:
    """Yield the tokens, without spaces and comments."""
    for found in _TOKEN.finditer(text):
        if found.lastgroup == "mark":
            yield Token("mark", *found.span())
        elif found.lastgroup == "word":
            yield Token("word", *found.span())


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens_of(text)

    def value(self, token: Token | None = None) -> Value:
        token = token or next(self._tokens)
        value = Value(token.start, token.end)
        if token.kind == "mark":
            value.kind = self._text[token.start]
            self._fill(value)
        return value

    def _fill(self, value: Value) -> None:
        token = next(self._tokens)
        while self._text[token.start] not in "}]":
            if value.kind == "{":
                next(self._tokens)  # the colon
                value.members.append(Member(self._key(token), token.start, self.value()))
            else:
                value.members.append(Member(len(value.members), token.start, self.value(token)))
            token = next(self._tokens)
            if self._text[token.start] == ",":
                value.members[-1].comma = token.start
                token = next(self._tokens)
        value.end = token.end

    def _key(self, token: Token) -> str:
        [key] = pyjson5.decode(f"{{{self._text[token.start : token.end]}:0}}")
        return str(key)
