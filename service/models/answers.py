"""Receive a model's answer. The steps are the same for every dialect, whose answer reads the events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from service.models.drafts import DraftReceiver, Drafts, WrittenCall
from service.models.http.response import UpstreamResponse
from service.models.inline_reasoning import ThoughtFilter, ThoughtFilters
from service.models.provider import ModelEnded, ModelRequest, TextReceiver
from service.models.streaming import AnswerReader, read_texts
from service.models.tool_style import ToolStyle


class Answer(AnswerReader, Protocol):
    """State of one answer of a dialect.

    `thoughts` filters its text. `rest` is the text that was held back until the end, after `to_end`.
    """

    thoughts: ThoughtFilter
    rest: str

    @property
    def calls(self) -> Sequence[WrittenCall]:
        """The calls so far, as a list that grows."""
        ...

    def text(self) -> str:
        """Return the whole text, unfiltered."""
        ...

    def to_end(self) -> ModelEnded:
        """Return the end of the answer. Raises `GatewayError` (`provider_error`) if it is not complete."""
        ...


def receive_answer(
    response: UpstreamResponse,
    answer: Answer,
    request: ModelRequest,
    on_text: TextReceiver,
    *,
    tools: ToolStyle,
    filters: ThoughtFilters,
    timeout_seconds: float,
) -> ModelEnded:
    """Read `answer` from `response` to its end; `on_text` and `request.drafts` receive it as it comes.

    `tools` is the form in which the request's tools were sent, `filters` has made the answer's. Raises the errors of
    `read_texts`, `Answer.to_end` and `ThoughtFilters.check`.
    """
    if request.drafts is not None:
        shows_calls = request.drafts.wants_calls and tools.name_chars is None
        answer.drafts = answer.thoughts.drafts = Drafts(answer.calls if shows_calls else ())
    _deliver(read_texts(response, answer, timeout_seconds=timeout_seconds), answer, on_text, request.drafts)
    end = answer.to_end()
    filters.check(request.model, answer.thoughts, answer.text())
    if answer.rest or request.drafts is not None:
        _deliver((answer.rest,), answer, on_text, request.drafts)
    return tools.restore(request, end) if end.tool_calls else end


def _deliver(texts: Iterable[str], answer: Answer, on_text: TextReceiver, drafts: DraftReceiver | None) -> None:
    """Pass `texts`, those of `answer`, to `on_text`, and what it has beside them to `drafts`.

    Calls are not drafts any more once all of the answer is there: its end says whether they are calls at all.
    """
    found = None if drafts is None else answer.drafts
    for text in texts:
        if drafts is not None and found is not None:
            found.pass_reasoning(drafts)
        if text:
            on_text(text)
        if drafts is not None and found is not None and not answer.is_complete():
            found.pass_calls(drafts)
