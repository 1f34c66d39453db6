"""Numbers of a run's events: exact from any point, whatever was merged."""

from __future__ import annotations

from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.runs import new_run

from service.agent.event_log import TEXT_CHARACTERS, current_tool, events_after
from service.agent.events import (
    ApprovalClosed,
    ApprovalRequested,
    RunEnded,
    RunEvent,
    StepEnded,
    TextDelta,
    TextRetracted,
    ToolCallRequested,
    ToolEnded,
    ToolStarted,
)
from service.agent.run import Run
from service.core.errors import GatewayError
from service.core.messages import ToolCall, Usage
from service.storage.runs.events import BATCH_UNITS, LoggedEvent, to_batches

CALL = ToolCall("1", "look", "{}")
EVENTS = st.one_of(
    st.text(max_size=8).map(TextDelta),
    st.sampled_from(
        [
            ToolStarted(CALL),
            ToolEnded(CALL, "x" * 500, failed=False, duration_ms=3),
            ToolCallRequested(0, CALL),
            TextRetracted(1),
            StepEnded(Usage(1, 2, 3)),
            ApprovalRequested("a", "look", "{}", "1"),
            ApprovalClosed("a", "decided", "deny"),
        ]
    ),
)


def run_with(events: list[RunEvent], end: RunEnded | None) -> Run:
    run = new_run()
    run.begin()
    for event in events:
        run.append(event)
    if end is not None:
        run.append(end)
    return run


def units(events: list[LoggedEvent]) -> list[object]:
    """Return one element for each unit, which its number counts; checks that none is missing."""
    found: list[object] = []
    last: int | None = None
    for event in events:
        members = orjson.loads(event.data)
        text = members.get("text", "x") if event.kind == "text.delta" else None
        size = 1 if text is None else len(text)
        assert last is None or event.number == last + size
        last = event.number
        del members["sequence_number"]
        found += [(event.kind, orjson.dumps(members))] if text is None else [("text.delta", one) for one in text]
    return found


@given(
    st.lists(EVENTS, max_size=30), st.sampled_from([None, RunEnded(), RunEnded(error=GatewayError("run_aborted", "x"))])
)
def test_events_from_any_number_are_the_rest_of_all(events: list[RunEvent], end: RunEnded | None) -> None:
    live, read_late = run_with([], None), run_with(events, end)
    seen: list[LoggedEvent] = []
    for event in [*events, *([] if end is None else [end])]:
        live.append(event)
        seen += events_after(live, seen[-1].number if seen else 0)
    if not events and end is None:
        seen = events_after(live, 0)
    whole = units(seen)
    assert units(events_after(read_late, 0)) == whole
    for number in range(len(whole) + 2):
        assert units(events_after(read_late, number)) == whole[number:]


def test_long_text_is_divided() -> None:
    run = run_with([TextDelta("a" * (3 * TEXT_CHARACTERS + 1)), TextDelta("b" * BATCH_UNITS)], None)
    events = events_after(run, 0)
    assert max(len(event.data) for event in events) < TEXT_CHARACTERS + 100
    batches = to_batches(1, events)
    assert [event for batch in batches for event in batch.events] == events
    for batch, following in pairwise(batches):
        assert following.first == batch.events[-1].number + 1
    assert all(batch.events[-1].number - batch.first < BATCH_UNITS for batch in batches)


@pytest.mark.parametrize("begun", [True, False])
def test_refused_run_has_no_start(*, begun: bool) -> None:
    run = new_run()
    assert [event.kind for event in events_after(run, 0)] == ["run.queued"]
    if begun:
        run.begin()
    run.append(RunEnded(error=GatewayError("session_busy", "busy")))
    kinds = ["run.queued", *(["run.started"] if begun else []), "usage", "run.ended"]
    assert [event.kind for event in events_after(run, 0)] == kinds


def test_current_tool_is_the_last_that_has_not_ended() -> None:
    other = ToolCall("2", "read", "{}")
    run = run_with([ToolStarted(CALL), ToolStarted(other)], None)
    assert current_tool(run) == "read"
    run.append(ToolEnded(other, "", failed=False))
    assert current_tool(run) == "look"
    run.append(ToolEnded(CALL, "", failed=False))
    assert current_tool(run) is None
