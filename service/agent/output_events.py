"""The events of a run's output, from its log or from the messages of its turn."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from service.agent.conversation import unanswered_calls
from service.agent.events import (
    PARAGRAPH,
    ReasoningDelta,
    ReasoningRetracted,
    RunEvent,
    TextDelta,
    TextRetracted,
    ToolCallRequested,
    ToolEnded,
    ToolStarted,
)
from service.core.messages import Message, Role, ToolCall


def settled_events(log: Sequence[RunEvent]) -> list[RunEvent]:
    """Return the events of a log without what was retracted later."""
    settled: list[RunEvent] = []
    for event in log:
        if isinstance(event, TextRetracted):
            _retract(settled, TextDelta, event.characters)
        elif isinstance(event, ReasoningRetracted):
            _retract(settled, ReasoningDelta, event.characters)
        else:
            settled.append(event)
    return settled


def _retract(events: list[RunEvent], kind: type[TextDelta | ReasoningDelta], characters: int) -> None:
    for place in range(len(events) - 1, -1, -1):
        event = events[place]
        if characters and isinstance(event, kind):
            kept = event.text[: max(0, len(event.text) - characters)]
            characters -= len(event.text) - len(kept)
            events[place] = kind(kept)


def reply_events(reply: Sequence[Message], callers: Container[str] = ()) -> Iterator[RunEvent]:
    """Yield the events that the messages of a finished run amount to, but for its reasoning and its end.

    Calls of the functions `callers` that the caller did not get, because the run failed, are left out.
    """
    asked, has_spoken = unanswered_calls(reply), False
    begun: dict[str, ToolCall] = {}
    for message in reply:
        call = begun.get(message.tool_call_id or "")
        if call is not None and message.duration_ms is not None:  # else the run ended before the call
            yield ToolEnded(call, message.text, message.failed, message.duration_ms)
        if message.role is not Role.ASSISTANT:
            continue
        if message.text:
            yield TextDelta(f"{PARAGRAPH}{message.text}" if has_spoken else message.text)
            has_spoken = True
        begun = {call.id: call for call in message.tool_calls if call not in asked and call.name not in callers}
        yield from map(ToolStarted, begun.values())
    for index, call in enumerate(asked):
        yield ToolCallRequested(index, call)
