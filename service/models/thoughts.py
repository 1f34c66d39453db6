"""Separate thoughts that a model writes into its text from the answer.

Models whose host does not parse their reasoning begin with `<think>...</think>`.
"""

from __future__ import annotations

_TAGS = (("<think>", "</think>"), ("<thinking>", "</thinking>"))


class ThoughtFilter:
    """Removes a block of thoughts from the start of one answer, whose text comes in pieces.

    `found` is set once there was one; `is_done` once all further text is part of the answer.
    """

    __slots__ = ("_end", "_pending", "found", "is_done")

    def __init__(self) -> None:
        self.found = self.is_done = False
        self._pending = ""
        self._end: str | None = None  # the tag that is awaited

    def filter(self, text: str) -> str:
        """Return the part of `text` that belongs to the answer, holding back what may be a tag."""
        if self.is_done or not text:
            return text
        self._pending += text
        if not self.found:
            return self._find_start()
        if self._end is not None:
            thoughts, end, answer = self._pending.partition(self._end)
            if not end:
                self._pending = thoughts[-len(self._end) :]
                return ""
            self._end, self._pending = None, answer
        return self._begin_answer()

    def finish(self) -> str:
        """Return the text that was held back and turned out to be the answer's."""
        return "" if self.found else self._pending

    def _find_start(self) -> str:
        start = self._pending.lstrip()
        for tag, end in _TAGS:
            if start.startswith(tag):
                self.found, self._end = True, end
                rest, self._pending = start.removeprefix(tag), ""
                return self.filter(rest)
        if any(tag.startswith(start) for tag, _ in _TAGS):
            return ""
        self.is_done = True
        return self._take()

    def _begin_answer(self) -> str:
        self._pending = self._pending.lstrip()
        self.is_done = bool(self._pending)
        return self._take()

    def _take(self) -> str:
        text, self._pending = self._pending, ""
        return text
