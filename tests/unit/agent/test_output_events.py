"""The events of an output: what was retracted, and what the messages of a turn amount to."""

from __future__ import annotations

from service.agent.events import (
    ReasoningDelta,
    ReasoningRetracted,
    RunEvent,
    TextDelta,
    TextRetracted,
    ToolCallRequested,
    ToolEnded,
    ToolStarted,
)
from service.agent.output_events import reply_events, settled_events
from service.core.messages import Message, Role, Text, ToolCall

LOOK, ASK, CUT = (ToolCall(name, name, "{}") for name in ("look", "ask", "cut"))


def test_what_was_retracted_is_left_out_across_other_events() -> None:
    log: list[RunEvent] = [
        TextDelta("kept, "),
        ReasoningDelta("thought"),
        TextDelta("not "),
        ReasoningDelta(" wrongly"),
        TextDelta("kept"),
        TextRetracted(8),
        ReasoningRetracted(8),
        TextDelta("too"),
    ]
    settled = settled_events(log)
    assert "".join(event.text for event in settled if isinstance(event, TextDelta)) == "kept, too"
    assert "".join(event.text for event in settled if isinstance(event, ReasoningDelta)) == "thought"


def test_turn_amounts_to_its_texts_and_calls() -> None:
    result = Message(Role.TOOL, (Text("no"),), tool_call_id="look", duration_ms=3, failed=True)
    cut = Message(Role.TOOL, (Text("(no result)"),), tool_call_id="cut")
    reply = [
        Message(Role.ASSISTANT, (Text("One."),), tool_calls=(LOOK, CUT)),
        *(result, cut),
        Message(Role.ASSISTANT, (Text("Two."),), tool_calls=(ASK,)),
    ]
    assert list(reply_events(reply)) == [
        TextDelta("One."),
        *(ToolStarted(LOOK), ToolStarted(CUT)),
        ToolEnded(LOOK, "no", failed=True, duration_ms=3),
        TextDelta("\n\nTwo."),
        ToolCallRequested(0, ASK),
    ]
    assert ToolStarted(CUT) not in list(reply_events(reply, {"cut"}))
