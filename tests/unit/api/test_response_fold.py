"""Responses folded from the events of runs: the numbers and the order of a stream's events."""

from __future__ import annotations

from typing import Any

import orjson

from service.agent.events import RunEnded, RunEvent, TextDelta, ToolCallRequested, ToolCallWritten
from service.api.http.openai_responses.echo import to_echo
from service.api.http.openai_responses.output import ResponseFold, StreamedEvent
from service.core.errors import GatewayError
from service.core.messages import Sampling, StopReason, ToolCall

RUN = "chatcmpl_01a2271b-d23c-73ee-bf4f-e018d388d97e"
DELTA = "response.function_call_arguments.delta"


def folded(*events: RunEvent) -> list[StreamedEvent]:
    fold = ResponseFold(RUN, 1000.5, to_echo({"input": "hi"}, "main", Sampling()))
    return [*fold.begin(), *(one for event in events for one in fold.add(event, 1001.5))]


def kinds(events: list[StreamedEvent]) -> list[str]:
    return [event.kind.removeprefix("response.") for event in events]


def last_response(events: list[StreamedEvent]) -> dict[str, Any]:
    response: dict[str, Any] = events[-1].members["response"]
    return response


def test_numbers_do_not_depend_on_division_of_text() -> None:
    end = RunEnded()
    pieces = folded(*(TextDelta(letter) for letter in "abcdef"), end)
    whole = folded(TextDelta("abcdef"), end)
    assert [one for one in pieces if "delta" not in one.members] == [one for one in whole if "delta" not in one.members]
    assert (pieces[0].number, pieces[-1].number) == (0, whole[-1].number)


def test_delta_can_be_continued_within_its_text() -> None:
    [delta] = [one for one in folded(TextDelta("abcdef"), RunEnded()) if "delta" in one.members]
    rest = delta.after(delta.number - 2)
    assert (rest.number, rest.members["delta"]) == (delta.number, "ef")
    assert delta.after(delta.number - 6) == delta


def test_arguments_are_streamed_while_they_are_written() -> None:
    call = ToolCall("c0", "f", '{"a":1}')
    written = [ToolCallWritten(0, "c0", "f", piece) for piece in ('{"a"', ":1")]
    events = folded(*written, ToolCallRequested(0, call), RunEnded(StopReason.TOOL_CALLS))
    assert [one.members["delta"] for one in events if one.kind == DELTA] == ['{"a"', ":1", "}"]
    plain = folded(ToolCallRequested(0, call), RunEnded(StopReason.TOOL_CALLS))
    assert events[-1] == plain[-1]


def test_parallel_call_and_late_text_wait_for_call_before_them() -> None:
    first, second = ToolCall("c0", "f", "{}"), ToolCall("c1", "g", "{}")
    events = folded(
        ToolCallWritten(0, "c0", "f", "{"),
        ToolCallWritten(1, "c1", "g", "{"),
        TextDelta("late"),
        ToolCallRequested(0, first),
        ToolCallRequested(1, second),
        RunEnded(StopReason.TOOL_CALLS),
    )
    added = [one.members["item"]["type"] for one in events if one.kind == "response.output_item.added"]
    assert added == ["function_call", "message", "function_call"]
    assert [item["type"] for item in last_response(events)["output"]] == added
    assert [one.number for one in events] == sorted({one.number for one in events})


def test_failure_closes_open_item_before_end() -> None:
    events = folded(ToolCallWritten(0, "c0", "f", "{"), RunEnded(error=GatewayError("provider_error", "Broken.")))
    assert kinds(events)[-3:] == ["function_call_arguments.done", "output_item.done", "failed"]
    response = last_response(events)
    assert (response["status"], response["output"][0]["status"], response["usage"]) == ("failed", "incomplete", None)


def test_run_that_says_nothing_has_an_empty_message() -> None:
    response = last_response(folded(RunEnded()))
    assert [item["content"][0]["text"] for item in response["output"]] == [""]
    assert (response["created_at"], response["completed_at"]) == (1000, 1001)
    assert orjson.loads(orjson.dumps(response)) == response
