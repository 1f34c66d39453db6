"""One attempt to have a model answer: its output on the way to the reader, and its signals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from time import monotonic
from typing import Protocol

from service.core import concurrency
from service.core.errors import GatewayError
from service.core.messages import Usage
from service.core.signals import ModelAnswered, ModelCalled, ModelCalling, model_answered, model_called, model_calling
from service.models.catalog import ChosenModel
from service.models.drafts import DraftReceiver
from service.models.errors.log_words import log_words, texts_of
from service.models.provider import ModelEnded, ModelRequest, TextReceiver

#: The usage of a call that has begun and not ended, which no provider reports.
CUT_OFF = Usage(cost_nano=None)

#: Pieces of output between two pauses: a provider that always has more would block every other greenlet.
_PIECES_AT_ONCE = 1000


class _Begin(Protocol):
    def __call__(self, *, is_binding: bool) -> None: ...


class Attempt:
    """Passes on the output of one attempt, and calls `begin` before it: its text cannot be withdrawn once it is out.

    Its `number` counts from 1, `waited_seconds` is the wait since the one before. `texts` are the pieces of its text,
    `None` if they are not kept, and `began_at` is the monotonic time of the first output. `begin` must not refer to the
    attempt: in a cycle the text of an aborted run would wait for the garbage collector.
    """

    def __init__(
        self,
        number: int,
        waited_seconds: float,
        on_text: TextReceiver,
        drafts: DraftReceiver | None,
        begin: _Begin,
    ) -> None:
        self.number = number
        self.waited_seconds = waited_seconds
        self.texts: list[str] | None = [] if model_answered.receivers else None
        self.is_binding = drafts is not None and drafts.is_binding
        self.wants_calls = drafts is not None and drafts.wants_calls
        self._on_text = on_text if self.texts is None else self._keeping(on_text, self.texts)
        self._drafts = drafts
        self._begin = begin
        self._has_text = False
        self.began_at: float | None = None
        self.characters = 0
        self._pieces = count(1)

    @staticmethod
    def _keeping(on_text: TextReceiver, texts: list[str]) -> TextReceiver:
        def keep(text: str) -> None:
            texts.append(text)
            on_text(text)

        return keep

    def add_text(self, text: str) -> None:
        """Pass on a piece of the text."""
        if not self._has_text:
            self._has_text = True
            self.began_at = self.began_at or monotonic()
            self._begin(is_binding=True)
        self.characters += len(text)
        self._on_text(text)
        if next(self._pieces) % _PIECES_AT_ONCE == 0:
            concurrency.pause()

    def add_reasoning(self, text: str) -> None:
        """See `DraftReceiver`."""
        self.began_at = self.began_at or monotonic()
        self._begin(is_binding=self.is_binding)
        self.characters += len(text)
        if self._drafts is not None:
            self._drafts.add_reasoning(text)
        if next(self._pieces) % _PIECES_AT_ONCE == 0:
            concurrency.pause()

    def add_arguments(self, names: Sequence[str], text: str) -> None:
        """See `DraftReceiver`."""
        self.began_at = self.began_at or monotonic()
        self._begin(is_binding=True)
        self.characters += len(text)
        if self._drafts is not None:
            self._drafts.add_arguments(names, text)
        if next(self._pieces) % _PIECES_AT_ONCE == 0:
            concurrency.pause()


def ask_once(choice: ChosenModel, request: ModelRequest, attempt: Attempt) -> ModelEnded:
    """Make the attempt and return its end, with its cost.

    Raises the errors of `Provider.ask`, with what the log may say of them if there was no output.
    """
    if model_calling.receivers:
        model_calling.emit(ModelCalling(choice.ref, attempt.number, attempt.waited_seconds, request.sampling))
    end, failure, began_at = None, None, monotonic()
    try:
        end = choice.signed(choice.provider.ask(request, attempt.add_text))
    except GatewayError as error:
        error.reason = log_words(error, texts_of(request)) if attempt.began_at is None else None
        failure = error
        raise
    finally:
        if attempt.texts is not None:
            model_answered.emit(_to_answered(request, "".join(attempt.texts), end))
        if model_called.receivers:
            model_called.emit(_to_called(choice, attempt, end, failure, began_at))
        failure = None  # its traceback refers to this frame
    return end


def _to_answered(request: ModelRequest, text: str, end: ModelEnded | None) -> ModelAnswered:
    calls, reason = ((), "error") if end is None else (end.tool_calls, str(end.stop_reason))
    return ModelAnswered(request.system, request.messages, text, calls, reason)


def _to_called(
    choice: ChosenModel,
    attempt: Attempt,
    end: ModelEnded | None,
    failure: GatewayError | None,
    began_at: float,
) -> ModelCalled:
    outcome = "cancelled" if failure is None else failure.code
    return ModelCalled(
        choice.ref,
        outcome if end is None else "ok",
        attempt.number,
        attempt.waited_seconds,
        monotonic() - began_at,
        None if attempt.began_at is None else attempt.began_at - began_at,
        CUT_OFF if end is None else end.usage,
        None if end is None else str(end.stop_reason),
        None if failure is None else failure.reason,
    )
