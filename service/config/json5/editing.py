"""Set or remove one value in a JSON5 text and preserve everything else, comments and layout included.

Libraries that preserve comments reformat the document. Here only the edited place changes, in the style of its
neighbours: their indentation, quotes and trailing commas.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from service.config.json5.scanner import REST_OF_LINE, Member, Value, scan, tokens_of
from service.config.key_paths import KeyPath, format_path

_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_INDENT = "  "


class EditError(ValueError):
    """A value that cannot be set or removed. The message is for users."""


def set_value(text: str, path: KeyPath, value: Any) -> str:
    """Set `value` at `path` in `text`, valid JSON5, and create missing objects on the way.

    The index after the last one appends to a list. Raises `EditError`.
    """
    style = _Style(text)
    holder, found, rest = _walk(text, path)
    if found is not None and not rest:
        indent = style.indent_at(found.start)
        return text[: found.value.start] + style.render(value, indent) + text[found.value.end :]
    for step in reversed(rest[1:]):
        value = {str(step): value} if not _is_index(step) else [value]
        if isinstance(value, list) and int(step) != 0:
            raise EditError(f"{format_path(path)}: the list does not exist yet; begin with the index 0")
    return _insert(text, style, holder, rest[0], value)


def remove_value(text: str, path: KeyPath) -> str:
    """Remove the value at `path` from `text`, valid JSON5. Raises `EditError` if there is none."""
    holder, found, rest = _walk(text, path)
    if found is None or rest:
        raise EditError(f"{format_path(path)} is not set")
    shorter = _remove(text, holder, found)
    if holder.kind == "{":
        try:
            return remove_value(shorter, path)  # an object may hold a key twice; the last one counts
        except EditError:
            pass
    return shorter


def get_value(data: Any, path: KeyPath) -> Any:
    """Return the value at `path` of decoded JSON5. Raises `KeyError` if there is none."""
    for step in path:
        if isinstance(data, list) and _is_index(step) and int(step) < len(data):
            data = data[int(step)]
        elif isinstance(data, dict) and step in data:
            data = data[step]
        else:
            raise KeyError(format_path(path))
    return data


def _walk(text: str, path: KeyPath) -> tuple[Value, Member | None, Sequence[str | int]]:
    """Return the innermost container on the way, its member there if it exists, and the missing steps."""
    holder = scan(text)
    _check_container(holder, (), path)
    for position, step in enumerate(path):
        found = next((member for member in reversed(holder.members) if _is_step(member, step)), None)
        if found is None or position == len(path) - 1:
            _check_step(holder, path, position, found)
            return holder, found, path[position + (found is not None) :]
        holder = found.value
        _check_container(holder, path[: position + 1], path)
    raise EditError("a key is required")


def _is_index(step: str | int) -> bool:
    return isinstance(step, int) or (step.isascii() and step.isdecimal())


def _is_step(member: Member, step: str | int) -> bool:
    return member.key == (int(step) if isinstance(member.key, int) and _is_index(step) else step)


def _check_container(value: Value, at: KeyPath, path: KeyPath) -> None:
    if not value.kind:
        raise EditError(f"{format_path(at)} is neither an object nor a list, so that {format_path(path)} cannot exist")


def _check_step(holder: Value, path: KeyPath, position: int, found: Member | None) -> None:
    step, place = path[position], format_path(path[:position])
    if holder.kind == "[" and found is None and not (_is_index(step) and int(step) == len(holder.members)):
        raise EditError(f"{place} is a list of {len(holder.members)}; the next index is {len(holder.members)}")
    if holder.kind == "{" and isinstance(step, int):
        raise EditError(f"{place} is an object: use a key, not an index")


def _insert(text: str, style: _Style, holder: Value, key: str | int, value: Any) -> str:
    last = holder.members[-1] if holder.members else None
    begin = holder.members[0].start if holder.members else holder.end - 1
    spread = "\n" in text[holder.start : begin] or (last is None and holder.start == scan(text).start)
    own = style.indent_at(holder.start)
    indent = style.indent_at(begin) if last is not None else own + _INDENT
    entry = style.render(value, indent if spread else None)
    if holder.kind == "{":
        entry = f"{style.key(str(key))}: {entry}"
    if last is None:
        return _insert_first(text, style, holder, entry, (own, indent) if spread else None)
    comma = "" if last.comma is None else ","
    if not spread:
        return f"{text[: last.end]}{'' if comma else ','} {entry}{comma}{text[last.end :]}"
    before, line = f"{text[: last.end]}{'' if comma else ','}", f"{style.newline}{indent}"
    rest = REST_OF_LINE.match(text, last.end)
    if rest is None:  # the bracket is on this line, or a comment that continues
        return f"{before}{line}{entry}{comma}{line}" + text[last.end :].lstrip(" \t")
    return f"{before}{rest[0]}{line}{entry}{comma}{text[rest.end() :]}"


def _insert_first(text: str, style: _Style, holder: Value, entry: str, indents: tuple[str, str] | None) -> str:
    inner = text[holder.start + 1 : holder.end - 1].rstrip()
    before, after = text[: holder.start + 1] + inner, text[holder.end - 1 :]
    if indents is None:
        return f"{before} {entry} {after}"
    return f"{before}{style.newline}{indents[1]}{entry}{style.comma}{style.newline}{indents[0]}{after}"


def _remove(text: str, holder: Value, member: Member) -> str:
    index = holder.members.index(member)
    start, end = member.start, member.end
    if member.comma is None and index:
        comma = holder.members[index - 1].comma
        if comma is not None:
            text, start, end = text[:comma] + text[comma + 1 :], start - 1, end - 1
    line_start = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
    rest = REST_OF_LINE.match(text, end)
    if rest is not None and not text[line_start:start].strip() and line_start:
        line_end = re.compile(r"\r\n|\n|\r|").match(text, rest.end())
        return text[:line_start] + text[line_end.end() if line_end else rest.end() :]
    if index < len(holder.members) - 1:
        return text[:start] + text[end:].lstrip(" \t")
    return text[:start].rstrip(" \t") + text[end:]


class _Style:
    """The style of a text, for what is added to it."""

    def __init__(self, text: str) -> None:
        words = [text[token.start] for token in tokens_of(text) if text[token.start] not in ":,]}"]
        self._text = text
        self._quoted = words[1:2] == ['"']
        self.newline = "\r\n" if "\r\n" in text else "\n"
        #: Follows the last member of an object or list on several lines.
        self.comma = "" if self._quoted else ","

    def indent_at(self, position: int) -> str:
        """Return the white space at the beginning of the line of `position`."""
        line = self._text[self._text.rfind("\n", 0, position) + 1 : position]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def key(self, key: str) -> str:
        """Write a key like its neighbours."""
        return key if not self._quoted and _IDENTIFIER.fullmatch(key) else json.dumps(key, ensure_ascii=False)

    def render(self, value: Any, indent: str | None) -> str:
        """Write `value` as JSON5 with later lines indented by `indent`, on one line without it."""
        if isinstance(value, dict) and value:
            return self._spread("{", [(f"{self.key(key)}: ", item) for key, item in value.items()], "}", indent)
        if isinstance(value, list) and value:
            return self._spread("[", [("", item) for item in value], "]", indent)
        if isinstance(value, float) and not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return json.dumps(value, ensure_ascii=False)

    def _spread(self, opening: str, items: list[tuple[str, Any]], closing: str, indent: str | None) -> str:
        if indent is None or not any(isinstance(item, dict | list) and item for _, item in items):
            inner = ", ".join(head + self.render(item, None) for head, item in items)
            return f"{opening} {inner} {closing}" if opening == "{" else f"{opening}{inner}{closing}"
        deeper = f"{self.newline}{indent}{_INDENT}"
        inner = f",{deeper}".join(head + self.render(item, indent + _INDENT) for head, item in items)
        return f"{opening}{deeper}{inner}{self.comma}{self.newline}{indent}{closing}"
