"""Read content that is a list of parts instead of a text."""

from __future__ import annotations

from typing import Any

_THOUGHTS = ("thinking", "reasoning")


def text_of_parts(content: Any) -> tuple[str, bool]:
    """Return the text of `content`, and True if some of its parts are thoughts (Mistral), which are left out."""
    if isinstance(content, str):
        return content, False
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    has_thoughts = False
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type") in _THOUGHTS:
            has_thoughts = True
        elif isinstance(text := part.get("text") or part.get("refusal"), str):
            texts.append(text)
    return "".join(texts), has_thoughts
