"""Separate thoughts that a model writes into its text from the answer.

Models whose host does not parse their reasoning begin with `<think>...</think>`, or without the opening tag where the
chat template has put it into the prompt.
"""

from __future__ import annotations

import re

from service.core.errors import GatewayError

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
#: In lower case: Mistral's, Kimi's, Cohere's and those of OpenAI's open models.
_TAGS = (
    *((f"<{name}>", f"</{name}>") for name in _NAMES),
    ("[think]", "[/think]"),
    ("◁think▷", "◁/think▷"),
    ("<|start_thinking|>", "<|end_thinking|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
_STARTS = tuple(tag for pair in _TAGS for tag in pair)
_ENDS = {start: re.compile(re.escape(end), re.IGNORECASE) for start, end in _TAGS}
_FIRST_CHARACTERS = frozenset(("", *(tag[0] for tag in _STARTS)))
_MAX_TAG_CHARS = max(map(len, _STARTS))
#: A closing tag in a paragraph by itself, which a sentence about tags has no reason for.
_LONE_END = re.compile(r"^[ \t]*(</think(ing)?>|\[/THINK\])[ \t]*(\n\s*\n\s*|\s*\Z)", re.IGNORECASE | re.MULTILINE)
_FENCE = "```"
_AN_OPENING = re.compile(r"<think(ing)?>|\[THINK\]", re.IGNORECASE)
_MAX_HELD_CHARS = 256 * 1024


def _split_at_lone_end(text: str) -> str | None:
    """Return what follows thoughts without an opening tag, `None` if `text` has none."""
    end = _LONE_END.search(text) if "/" in text else None
    if end is None or _AN_OPENING.search(text, 0, end.start()) or text.count(_FENCE, 0, end.start()) % 2:
        return None
    return text[end.end() :]


class ThoughtFilter:
    """Removes blocks of thoughts from the start of one answer, whose text comes in pieces.

    With `is_open` the answer may begin with thoughts without an opening tag: text is held back until their end.
    `found` is set once there were thoughts; `is_done` once all further text is part of the answer.
    """

    __slots__ = ("_end", "_is_open", "_pending", "found", "is_done")

    def __init__(self, *, is_open: bool = False) -> None:
        self.found = self.is_done = False
        self._is_open = is_open
        self._pending = ""
        self._end: re.Pattern[str] | None = None  # the tag that is awaited

    def filter(self, text: str) -> str:
        """Return the part of `text` that belongs to the answer, holding back what may be a tag."""
        if self.is_done or not text:
            return text
        self._pending += text
        if self._end is not None:
            end = self._end.search(self._pending)
            if end is None:
                self._pending = self._pending[-_MAX_TAG_CHARS:]
                return ""
            self._end, self._pending = None, self._pending[end.end() :]
        return self._find_start()

    def finish(self) -> str:
        """Return the text that was held back and turned out to be the answer's."""
        return "" if self._end is not None else self._pending

    def _find_start(self) -> str:
        start = self._pending.lstrip()
        if self.found:
            self._pending = start
        head = start[:_MAX_TAG_CHARS].lower()
        if head.startswith(_STARTS):
            tag = next(tag for tag in _STARTS if head.startswith(tag))
            self.found, self._end = True, _ENDS.get(tag)  # an end tag ends thoughts that are empty
            self._pending = ""
            return self.filter(start[len(tag) :])
        if head[:1] in _FIRST_CHARACTERS and any(tag.startswith(head) for tag in _STARTS):
            return ""
        if not self.found and (answer := _split_at_lone_end(self._pending)) is not None:
            self.found, self._pending = True, answer
            return self._find_start()
        if self._is_open and not self.found and len(self._pending) < _MAX_HELD_CHARS:
            return ""
        self.is_done = True
        text, self._pending = self._pending, ""
        return text


class ThoughtFilters:
    """Filters of one host's models, with those whose chat templates open the thoughts."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def of(self, model: str) -> ThoughtFilter:
        """Return a filter of one answer of `model`."""
        return ThoughtFilter(is_open=model in self._open)

    def check(self, model: str, used: ThoughtFilter, text: str) -> None:
        """Raise `GatewayError` (`provider_error`) if `text`, a whole answer, has thoughts that `used` let pass.

        Later answers of the model are held back until their thoughts end.
        """
        if not used.found and _split_at_lone_end(text) is not None:
            self._open.add(model)
            raise GatewayError("provider_error", "The model provider sent the model's reasoning as part of its answer.")
