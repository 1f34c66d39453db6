"""Separate thoughts that a model writes into its text from the answer.

Models whose host does not parse their reasoning begin with `<think>...</think>`, or without the opening tag where the
chat template has put it into the prompt. A tag that the request mentions is part of the answer: it was asked for.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from functools import partial

from service.core.errors import GatewayError
from service.core.messages import Role
from service.models.drafts import Drafts
from service.models.provider import ModelRequest

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
#: Tags as models write them.
_ANY_CASE = (
    *(tag for name in _NAMES for tag in (f"<{name}>", f"</{name}>")),
    *("<|start_thinking|>", "<|end_thinking|>"),
)
_EXACT = ("[THINK]", "[/THINK]", "◁think▷", "◁/think▷")
_ROLE = r"(?:<\|start\|>assistant\s*)?<\|channel\|>\s*"  # in the format of OpenAI's open models
_FINAL = _ROLE + r"final\s*(?:<\|constrain\|>\s*\w+\s*)?<\|message\|>"
#: Patterns of an opening tag, of its closing one and of either in a request.
_TAGS = (
    *((rf"(?i:<{name}>)", rf"(?i:</{name}>)", rf"(?i:</?{name}>)") for name in _NAMES),
    (r"\[THINK\]", r"\[/THINK\]", r"\[/?THINK\]"),
    ("◁think▷", "◁/think▷", "◁/?think▷"),
    (r"(?i:<\|start_thinking\|>)", r"(?i:<\|end_thinking\|>)", r"(?i:<\|(start|end)_thinking\|>)"),
    (_ROLE + r"analysis\s*<\|message\|>", _FINAL, r"<\|channel\|>"),
)
_OPENING = re.compile("|".join(f"({opening})" for opening, _, _ in _TAGS))
_CLOSING = re.compile("|".join(f"({closing})" for _, closing, _ in _TAGS))
_ENDS = [re.compile(closing) for _, closing, _ in _TAGS]
_MENTIONS = [re.compile(mention) for _, _, mention in _TAGS]
_IN_PROSE = len(_NAMES) + 1  # the tags of this many first pairs may begin a sentence
_HARMONY = ("<|start|>", "<|channel|>")
_MAX_HARMONY_CHARS = 96
_FIRST_CHARACTERS = frozenset("<[◁")
_MAX_TAG_CHARS = 24
#: A closing tag in a paragraph by itself, which a sentence about tags has no reason for.
_LONE_END = re.compile(r"^ {0,3}((?i:</think(ing)?>)|\[/THINK\])[ \t]*(\n\s*\n\s*|\s*\Z)", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(?:(`{3,})([^`\n]*)|(~{3,})([^\n]*))$", re.MULTILINE)
_AN_OPENING = re.compile(r"(?i:<think(ing)?\b[^<>\n]*>)|\[THINK\]")
_THINK = re.compile(r"(?i:</?think(ing)?\b)|\[/?THINK\]")
_MAX_HELD_CHARS = 256 * 1024

#: True if a request has a text that matches a pattern.
Mentions = Callable[[re.Pattern[str]], bool]


def _mentions(request: ModelRequest, tag: re.Pattern[str]) -> bool:
    """True if the texts of `request` that are not the model's have `tag`."""
    if tag.search(request.system):
        return True
    return any(tag.search(message.text) for message in request.messages if message.role is not Role.ASSISTANT)


def _split_at_lone_end(text: str) -> str | None:
    """Return what follows thoughts without an opening tag, `None` if `text` has none."""
    ends = list(_LONE_END.finditer(text))
    opening = _AN_OPENING.search(text) if ends else None
    fences = deque(_FENCE.finditer(text) if ends else ())
    fence = ""
    for end in ends:
        if opening is not None and opening.start() < end.start():
            return None
        while fences and fences[0].start() < end.start():
            fence = _fence_after(fence, fences.popleft())
        if not fence:
            return text[end.end() :]
    return None


def _without_end(thoughts: str) -> str:
    """Return thoughts that end with a closing tag without it."""
    ends = list(_LONE_END.finditer(thoughts))
    return thoughts[: ends[-1].start()] if ends else thoughts


def _fence_after(fence: str, line: re.Match[str]) -> str:
    """Return the fence of the block of code that goes on after `line`, empty if none does."""
    marks = line[1] or line[3]
    if not fence:
        return marks
    is_end = marks.startswith(fence) and not (line[2] or line[4] or "").strip()
    return "" if is_end else fence


class ThoughtFilter:
    """Removes blocks of thoughts from the start of one answer, whose text comes in pieces.

    Tags that the request mentions are left in the text. With `is_open` the answer may begin with thoughts without an
    opening tag: text is held back until their end. `found` is set once there were thoughts; `is_done` once all further
    text is part of the answer. `drafts` gets the thoughts, unless they are dropped.
    """

    __slots__ = ("_end", "_mentions", "_pending", "drafts", "found", "is_done", "is_open")

    def __init__(self, mentions: Mentions, *, is_open: bool = False) -> None:
        self.found = self.is_done = False
        self.is_open = is_open
        self.drafts: Drafts | None = None
        self._mentions = mentions
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
                self._remove(self._pending[:-_MAX_HARMONY_CHARS])
                self._pending = self._pending[-_MAX_HARMONY_CHARS:]
                return ""
            self._remove(self._pending[: end.start()])
            self._end, self._pending = None, self._pending[end.end() :]
        return self._find_start()

    def finish(self) -> str:
        """Return the text that was held back and turned out to be the answer's."""
        if self._end is None and not self.is_done and self._closing_at(self._pending.strip() + "\n"):
            self.found, self._pending = True, ""
        if self._end is not None:
            self._remove(self._pending)
            return ""
        return self._pending

    def without_lone_end(self, text: str) -> str | None:
        """Return what follows thoughts without an opening tag in a whole answer; `None` if it has none."""
        answer = None if self.found or "/" not in text else _split_at_lone_end(text)
        return None if answer is None or self._mentions(_THINK) else answer

    def _find_start(self) -> str:
        start = self._pending.lstrip()
        if self.found:
            self._pending = start
        if start[:1] in _FIRST_CHARACTERS and not self._is_mentioned(start):
            if tag := _OPENING.match(start) or self._closing_at(start):  # a closing tag ends thoughts that are empty
                self._end = _ENDS[_number(tag)] if tag.re is _OPENING else None
                self.found, self._pending = True, ""
                return self.filter(start[tag.end() :])
            if _may_become_tag(start):
                start = ""  # the next text decides
        if not start:
            return ""
        if (answer := self.without_lone_end(self._pending)) is not None:
            self._remove(_without_end(self._pending.removesuffix(answer)))
            self.found, self._pending = True, answer
            return self._find_start()
        if self.is_open and not self.found and len(self._pending) < _MAX_HELD_CHARS:
            return ""
        self.is_done = True
        text, self._pending = self._pending, ""
        return text

    def _remove(self, thoughts: str) -> None:
        if self.drafts is not None and thoughts:
            self.drafts.reasoning.append(thoughts)

    def _is_mentioned(self, start: str) -> bool:
        tag = _OPENING.match(start) or _CLOSING.match(start)
        return tag is not None and not self.found and self._mentions(_MENTIONS[_number(tag)])

    def _closing_at(self, start: str) -> re.Match[str] | None:
        """Return the closing tag that `start` begins with; one that may begin a sentence has its line for itself."""
        closing = _CLOSING.match(start)
        if closing is None or self.found or _number(closing) >= _IN_PROSE:
            return closing
        return closing if start[closing.end() :].lstrip(" \t").startswith(("\n", "\r")) else None


def _number(tag: re.Match[str]) -> int:
    """Return the place of a tag's pair in `_TAGS`."""
    return (tag.lastindex or 1) - 1


def _may_become_tag(start: str) -> bool:
    """True if text after `start` can make it a tag, or decide whether it is one."""
    closing = _CLOSING.match(start)
    if closing is not None:
        return not start[closing.end() :].strip(" \t")
    if any(mark.startswith(start) or start.startswith(mark) for mark in _HARMONY):
        return len(start) < _MAX_HARMONY_CHARS and "<|message|>" not in start
    if len(start) > _MAX_TAG_CHARS:
        return False
    lower = start.lower()
    return any(tag.startswith(lower) for tag in _ANY_CASE) or any(tag.startswith(start) for tag in _EXACT)


class ThoughtFilters:
    """Filters of one host's models, with those whose chat templates open the thoughts."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def of(self, request: ModelRequest) -> ThoughtFilter:
        """Return a filter of the answer to `request`."""
        return ThoughtFilter(partial(_mentions, request), is_open=request.model in self._open)

    def check(self, model: str, used: ThoughtFilter, text: str) -> None:
        """Raise `GatewayError` (`provider_error`) if `text`, a whole answer, has thoughts that `used` let pass.

        Later answers of the model are held back until their thoughts end, up to one that has none.
        """
        if used.without_lone_end(text) is not None:
            self._open.add(model)
            raise GatewayError("provider_error", "The model provider sent the model's reasoning as part of its answer.")
        if used.is_open and text.strip() and not used.found:
            self._open.discard(model)
