"""The numbered events of a run, translated from its log (`service.storage.runs.events` says how they are numbered)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import orjson

from service.agent.events import (
    ApprovalClosed,
    ApprovalRequested,
    ReasoningDelta,
    ReasoningRetracted,
    RunEnded,
    RunEvent,
    StepEnded,
    TextDelta,
    TextRetracted,
    ToolCallRequested,
    ToolCallWritten,
    ToolEnded,
    ToolStarted,
)
from service.agent.run import Run
from service.core.errors import GatewayError
from service.core.messages import ToolCall, Usage
from service.storage.runs.events import LoggedEvent, RunProgress
from service.storage.runs.records import RunState

ENDED = "run.ended"

#: The number of `run.started`.
STARTED_NUMBER = 2
_REASONING, _NO_REASONING = "reasoning.delta", "reasoning.retracted"

#: Events that are texts, each character of which has a number.
_TEXTS = (TextDelta, ReasoningDelta)

#: The longest text of one event.
TEXT_CHARACTERS = 16 * 1024

#: The longest summary of a tool's result; the transcript has all of it.
SUMMARY_CHARACTERS = 200


def queued_event(run_id: str, agent_id: str, session_key: str) -> LoggedEvent:
    """Return the first event of every run."""
    return LoggedEvent.of(1, "run.queued", {"run_id": run_id, "agent": agent_id, "session_key": session_key})


def end_events(
    last: int, usage: Usage, state: RunState, finish_reason: str | None, error: GatewayError | None
) -> list[LoggedEvent]:
    """Return the last events of a run, which follow number `last`."""
    failure = None if error is None else GatewayError(error.code, error.message).to_envelope()["error"]
    members = {"state": state.value, "finish_reason": finish_reason, "error": failure}
    return [LoggedEvent.of(last + 1, "usage", _to_usage(usage)), LoggedEvent.of(last + 2, ENDED, members)]


def events_after(run: Run, number: int, log: Sequence[RunEvent] | None = None) -> list[LoggedEvent]:
    """Return the events of a run of this process after `number`, up to its end if it has ended.

    `log` takes the place of the run's own.
    """
    found: list[LoggedEvent] = []
    if number < 1:
        found.append(queued_event(run.id, run.agent_id, run.session_key))
    if not run.has_begun and run.end is None:
        return found
    last = 1
    if run.has_begun:
        last = STARTED_NUMBER
        if number < last:
            found.append(LoggedEvent.of(last, "run.started", {}))
    for event in run.log if log is None else log:
        if isinstance(event, RunEnded):
            finish_reason = event.stop_reason.value if event.error is None else None
            end = end_events(last, run.usage, event.state, finish_reason, event.error)
            return found + [one for one in end if one.number > number]
        units = units_of(event)
        last += units
        if units and last > number:
            found += _translate(last, number, event)
    return found


def units_of(event: RunEvent) -> int:
    """Return by how much the number of an event is higher than that of the one before it."""
    if isinstance(event, ToolCallWritten):
        return 0
    return len(event.text) if isinstance(event, _TEXTS) else 1


def reasoning_events(run: Run) -> list[LoggedEvent]:
    """Return the events of a run that are about its reasoning."""
    return [event for event in events_after(run, 0) if event.kind in (_REASONING, _NO_REASONING)]


def fold_reasoning(before: str, events: Sequence[LoggedEvent]) -> str:
    """Return the reasoning after `events`, which follow those that led to `before`."""
    for event in events:
        if event.kind == _REASONING:
            before += orjson.loads(event.data)["text"]
        elif event.kind == _NO_REASONING:
            before = before[: -orjson.loads(event.data)["characters"]]
    return before


def current_tool(run: Run) -> str | None:
    """Return the tool that runs now; of several the last to begin."""
    ended = set()
    for event in reversed(run.log):
        if isinstance(event, ToolEnded):
            ended.add(event.call.id)
        elif isinstance(event, ToolStarted) and event.call.id not in ended:
            return event.call.name
    return None


def progress_of(run: Run) -> RunProgress:
    """Return what the record of a run shows until its end."""
    tool = current_tool(run)
    return RunProgress(run.started_at_ms, run.first_output_at_ms, run.model, run.step or None, tool, run.usage)


def _translate(last: int, number: int, event: RunEvent) -> list[LoggedEvent]:
    if isinstance(event, _TEXTS):
        text = event.text[-(last - number) :] if last - len(event.text) < number else event.text
        pieces = [text[begin : begin + TEXT_CHARACTERS] for begin in range(0, len(text), TEXT_CHARACTERS)]
        ends = accumulate(map(len, pieces), initial=last - len(text))
        next(ends)
        kind = "text.delta" if isinstance(event, TextDelta) else _REASONING
        return [LoggedEvent.of(end, kind, {"text": piece}) for end, piece in zip(ends, pieces, strict=True)]
    kind, members = _describe(event)
    return [LoggedEvent.of(last, kind, members)]


def _describe(event: RunEvent) -> tuple[str, dict[str, Any]]:
    match event:
        case TextRetracted() | ReasoningRetracted():
            kind = "text.retracted" if isinstance(event, TextRetracted) else _NO_REASONING
            return kind, {"characters": event.characters}
        case ToolStarted():
            return "tool.started", _to_call(event.call)
        case ToolEnded():
            summary = event.text[:SUMMARY_CHARACTERS]
            outcome = {"ok": not event.failed, "summary": summary, "duration_ms": event.duration_ms}
            return "tool.ended", {"id": event.call.id, **outcome}
        case ToolCallRequested():
            return "tool.requested", {"index": event.index, **_to_call(event.call)}
        case StepEnded():
            return "usage", _to_usage(event.usage)
        case _:
            return _describe_approval(event)


def _describe_approval(event: RunEvent) -> tuple[str, dict[str, Any]]:
    match event:
        case ApprovalRequested():
            asked = {"tool": event.tool, "arguments": event.arguments, "tool_call_id": event.tool_call_id}
            return "approval.requested", {"id": event.id, **asked}
        case ApprovalClosed():
            return "approval.closed", {"id": event.id, "state": event.state, "decision": event.decision}
        case _:
            raise TypeError(f"an event without a form: {event!r}")


def _to_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _to_usage(usage: Usage) -> dict[str, Any]:
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
    }
    return counts if usage.reasoning_tokens is None else {**counts, "reasoning_tokens": usage.reasoning_tokens}
