"""Read content that is a list of parts instead of a text."""

from __future__ import annotations

from typing import Any

from service.core.dataclass import record

_THOUGHTS = ("think", "thought", "reason")  # in the name of a kind
_TEXTS = ("text", "output_text", "refusal")
_FIELDS = ("text", "refusal", "content", "value")
_THOUGHT_FIELDS = ("thinking", "reasoning", "thought", "text", "content", "summary", "value")
_MAX_DEPTH = 8


@record
class Parts:
    """The text of content, and that of its `thoughts` (Mistral).

    `has_thoughts`: some parts are thoughts, `has_unknown`: some are of unknown kinds; both are left out of the text.
    """

    text: str
    has_thoughts: bool = False
    has_unknown: bool = False
    thoughts: str = ""


def read_parts(content: Any, depth: int = 0) -> Parts:
    """Read `content`, a text, a part or a list of parts. Raises `AttributeError` for anything else."""
    if isinstance(content, str):
        return Parts(content)
    if isinstance(content, list):
        read = [read_parts(part, depth) for part in content if part is not None]
        has_thoughts, has_unknown = any(one.has_thoughts for one in read), any(one.has_unknown for one in read)
        thoughts = "".join(one.thoughts for one in read)
        return Parts("".join(one.text for one in read), has_thoughts, has_unknown, thoughts)
    kind = str(content.get("type") or "text").lower()
    if any(word in kind for word in _THOUGHTS):
        return Parts("", has_thoughts=True, thoughts=_texts_in(content))
    fields = _FIELDS if kind in _TEXTS else _FIELDS[:2]
    values = [content[name] for name in fields if content.get(name) is not None]
    said = next(filter(None, values), None)
    if said is None:
        return Parts("", has_unknown=not values)
    return read_parts(said, depth + 1) if depth < _MAX_DEPTH else Parts("", has_unknown=True)


def _texts_in(value: Any, depth: int = 0) -> str:
    """Return the texts of a part that is a thought, whatever its form."""
    if isinstance(value, str):
        return value
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(value, list):
        return "".join(_texts_in(one, depth + 1) for one in value)
    if not isinstance(value, dict):
        return ""
    return next(filter(None, (_texts_in(value.get(name), depth + 1) for name in _THOUGHT_FIELDS)), "")
