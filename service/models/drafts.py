"""Reasoning and calls of a model, passed on as they arrive to the receivers that ask for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from service.models.openai.surrogates import Joiner

_OUTSIDE_TEXT = re.compile(r'["{}\[\]]')
_IN_TEXT = re.compile(r'["\\]')


class DraftReceiver(Protocol):
    """Receives an answer's drafts in order. With `is_binding` reasoning it has received cannot be withdrawn."""

    is_binding: bool
    wants_calls: bool

    def add_reasoning(self, text: str) -> None:
        """Take the next piece of the model's reasoning, which is not empty."""
        ...

    def add_arguments(self, names: Sequence[str], text: str) -> None:
        """Take the next piece of a call's arguments, which is not empty and cannot be withdrawn.

        `names` are those of the answer's calls up to this one.
        """
        ...


class HeldReasoning:
    """A `DraftReceiver` that keeps the reasoning of an answer that may be discarded."""

    is_binding = wants_calls = False

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add_reasoning(self, text: str) -> None:
        """Keep a piece."""
        self._pieces.append(text)

    def add_arguments(self, names: Sequence[str], text: str) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Forget what was kept."""
        self._pieces.clear()

    def pass_on(self, receiver: DraftReceiver | None) -> None:
        """Pass on what was kept, if there is a receiver."""
        if receiver is not None and self._pieces:
            receiver.add_reasoning("".join(self._pieces))


class WrittenCall(Protocol):
    """A tool call while the pieces of its arguments arrive."""

    name: str
    pieces: list[str]


class Drafts:
    """Drafts of one answer that its reader has found and that were not passed on yet; its `calls` may grow."""

    def __init__(self, calls: Sequence[WrittenCall] = ()) -> None:
        self.reasoning: list[str] = []
        self._calls = calls
        self._arguments: list[ArgumentsDraft] = []

    @property
    def is_pending(self) -> bool:
        """True if there may be something to pass on."""
        return bool(self.reasoning or self._calls)

    def pass_reasoning(self, receiver: DraftReceiver) -> None:
        """Pass on the reasoning that was found."""
        reasoning, self.reasoning[:] = "".join(self.reasoning), ()
        if reasoning:
            receiver.add_reasoning(reasoning)

    def pass_calls(self, receiver: DraftReceiver) -> None:
        """Pass on what is certain of the arguments of calls."""
        while len(self._arguments) < len(self._calls):
            self._arguments.append(ArgumentsDraft())
        for place, (call, draft) in enumerate(zip(self._calls, self._arguments, strict=True)):
            if text := draft.extend(call.pieces):
                receiver.add_arguments([one.name for one in self._calls[: place + 1]], text)


class ArgumentsDraft:
    """The arguments of a call while they arrive, as far as nothing that may follow changes them.

    Hosts repeat in each piece what came before, send an empty object first, everything twice, or an object encoded as a
    text: arguments are certain once a second piece goes on where the first one ended, from the opening brace of the
    object up to its closing one. Of other arguments nothing is.
    """

    def __init__(self) -> None:
        self._seen = 0  # pieces
        self._first = ""
        self._is_certain = self._is_over = False
        self._joiner = Joiner()
        self._depth = 0
        self._is_in_text = self._is_escaped = False

    def extend(self, pieces: Sequence[str]) -> str:
        """Return what `pieces`, all of the arguments so far, add to what is certain."""
        if self._is_over or len(pieces) == self._seen:
            return ""
        if len(pieces) < self._seen:  # they were replaced
            self._is_over = True
            return ""
        new, self._seen = [piece for piece in pieces[self._seen :] if piece], len(pieces)
        if not self._is_certain:
            new = self._decide(new)
        text = self._joiner.join("".join(new)) if new else ""
        return self._up_to_end(text) if text else ""

    def _decide(self, new: list[str]) -> list[str]:
        """Return the pieces that are certain with `new`; none before the second one."""
        known = [self._first, *new] if self._first else new
        self._first = known[0] if known else ""
        if len(known) < 2:  # noqa: PLR2004 - the first and the second
            return []
        self._is_certain = True
        self._is_over = known[1].startswith(known[0]) or not "".join(known).lstrip().startswith("{")
        return [] if self._is_over else known

    def _up_to_end(self, text: str) -> str:
        """Return `text` up to the brace that closes the object."""
        place = 0
        while place < len(text):
            if self._is_escaped:
                self._is_escaped = False
                place += 1
                continue
            mark = (_IN_TEXT if self._is_in_text else _OUTSIDE_TEXT).search(text, place)
            if mark is None:
                break
            place = mark.end()
            self._note(mark[0])
            if not self._depth:
                self._is_over = True
                return text[: mark.start()]
        return text

    def _note(self, mark: str) -> None:
        if mark == '"':
            self._is_in_text = not self._is_in_text
        elif mark == "\\":
            self._is_escaped = True
        else:
            self._depth += 1 if mark in "{[" else -1
