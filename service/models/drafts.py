"""What a model writes beside its text, passed on as it arrives to those who want to see it."""

from __future__ import annotations

from typing import Protocol


class DraftReceiver(Protocol):
    """Receives an answer's drafts in order. With `is_binding` what it has received cannot be withdrawn."""

    is_binding: bool

    def add_reasoning(self, text: str) -> None:
        """Take the next piece of the model's reasoning, which is not empty."""
        ...


class Drafts:
    """Drafts of one answer that its reader has found and `pass_on` has not passed on yet."""

    def __init__(self) -> None:
        self.reasoning: list[str] = []

    @property
    def is_pending(self) -> bool:
        """True if there is something to pass on."""
        return bool(self.reasoning)

    def pass_on(self, receiver: DraftReceiver) -> None:
        """Pass on what was found."""
        reasoning, self.reasoning[:] = "".join(self.reasoning), ()
        if reasoning:
            receiver.add_reasoning(reasoning)
