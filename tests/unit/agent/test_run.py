"""Runs: event log and readers, cancel scopes, disconnect detection."""

from __future__ import annotations

import socket
from time import monotonic

import pytest
from support.polling import until
from support.runs import new_run

from service.agent.events import ReasoningDelta, RunEnded, RunEvent, StepEnded, TextDelta, ToolCallRequested
from service.agent.run_reader import RunReader
from service.api.http.chat_response import ChunkStream
from service.api.http.run_stream import COMMENT
from service.core.concurrency import Cancelled, CancelScope, Deadline, deadline, sleep, spawn
from service.core.dataclass import replace
from service.core.disconnect import watch_disconnect
from service.core.errors import GatewayError
from service.core.messages import StopReason, ToolCall, Usage


def test_every_reader_gets_all_events() -> None:
    run = new_run()
    seen: list[list[RunEvent]] = [[], []]

    def read(into: list[RunEvent]) -> None:
        for batch in run.follow():
            into.extend(batch)

    early = spawn(read, seen[0])
    sleep(0)
    run.append(TextDelta("a"))
    sleep(0)
    run.append(TextDelta("b"))
    late = spawn(read, seen[1])
    run.append(RunEnded())
    early.join()
    late.join()
    assert seen[0] == seen[1] == [TextDelta("a"), TextDelta("b"), RunEnded()]


def test_reader_after_end_gets_one_batch() -> None:
    run = new_run()
    for event in (TextDelta("a"), RunEnded()):
        run.append(event)
    assert list(run.follow()) == [[TextDelta("a"), RunEnded()]]


def test_silence_yields_empty_batch() -> None:
    run = new_run()
    batches = run.follow(RunReader(0.01))
    assert next(batches) == []
    run.append(RunEnded())
    assert list(batches) == [[RunEnded()]]


def test_answer_has_all_text_and_calls() -> None:
    run = new_run()
    call = ToolCall("c", "f", "{}")
    end = RunEnded(StopReason.TOOL_CALLS, Usage(3, 2, 1))
    for event in (TextDelta("a"), TextDelta("b"), ToolCallRequested(0, call), end):
        run.append(event)
    answer = run.wait()
    assert (answer.text, answer.tool_calls, answer.stop_reason, answer.usage) == (
        "ab",
        (call,),
        end.stop_reason,
        end.usage,
    )


def test_wait_for_failed_run_raises_its_error() -> None:
    run = new_run()
    run.append(RunEnded(error=GatewayError("provider_error", "it broke")))
    with pytest.raises(GatewayError, match="it broke"):
        run.wait()


def test_idle_stream_sends_comment_line() -> None:
    run = new_run()
    stream = iter(ChunkStream(run, "openclaw", include_usage=False, quiet_seconds=0.01))
    assert b'"role":"assistant"' in next(stream)
    assert next(stream).startswith(b":")
    run.append(RunEnded())
    assert next(stream).endswith(b"data: [DONE]\n\n")


def test_cancel_ends_wait_in_block() -> None:
    scope, ended = CancelScope(), []

    def work() -> None:
        try:
            with scope:
                sleep(60)
        except Cancelled:
            ended.append(True)

    worker = spawn(work)
    sleep(0)
    scope.cancel()
    scope.cancel()
    worker.join()
    assert ended == [True]


def test_block_cancelled_before_start_does_not_start() -> None:
    scope = CancelScope()
    scope.cancel()
    with pytest.raises(Cancelled), scope:
        pytest.fail("the block was entered")


def test_cancel_after_block_does_nothing() -> None:
    scope = CancelScope()
    with scope:
        pass
    scope.cancel()
    sleep(0.01)


def test_cancel_while_leaving_block_does_nothing() -> None:
    scope = CancelScope()
    with scope:
        scope.cancel()
    sleep(0.01)


def test_deadline_ends_only_its_own_block() -> None:
    with pytest.raises(Deadline), deadline(0.01):
        sleep(5)
    with deadline(None):
        sleep(0)


def test_disconnect_is_reported_once() -> None:
    ours, theirs = socket.socketpair()
    noticed: list[bool] = []
    with ours, watch_disconnect(ours, lambda: noticed.append(True)):
        sleep(0.01)
        assert noticed == []
        theirs.close()
        until(lambda: noticed)
        sleep(0.05)
    assert noticed == [True]


def test_bytes_from_peer_are_kept_and_are_no_disconnect() -> None:
    ours, theirs = socket.socketpair()
    noticed: list[bool] = []
    with ours, theirs:
        with watch_disconnect(ours, lambda: noticed.append(True)):
            theirs.sendall(b"next")
            sleep(0.05)
        assert noticed == []
        assert ours.recv(4) == b"next"


def test_waiting_reader_has_the_first_event_of_a_turn_taken() -> None:
    run, reader = new_run(), RunReader()
    taken: list[RunEvent] = []
    batches: list[list[RunEvent]] = []

    def take(event: RunEvent) -> bool:
        taken.append(event)
        return True

    reader.take = take
    reading = spawn(lambda: batches.extend(list(batch) for batch in run.follow(reader)))
    run.append(TextDelta("before it waits"))
    sleep(0.01)
    for text in ("first", "second", "third"):  # in one turn
        run.append(TextDelta(text))
    sleep(0.01)
    run.append(TextDelta("alone"))
    sleep(0.01)
    reader.take = None
    run.append(RunEnded())
    reading.join()
    assert taken == [TextDelta("first"), TextDelta("alone")]
    assert batches == [[TextDelta("before it waits")], [TextDelta("second"), TextDelta("third")], [RunEnded()]]


def test_reader_gets_what_was_not_taken() -> None:
    run, reader = new_run(), RunReader()
    reader.take = lambda _: False
    batches: list[list[RunEvent]] = []
    reading = spawn(lambda: batches.extend(list(batch) for batch in run.follow(reader)))
    sleep(0.01)
    run.append(TextDelta("a"))
    sleep(0.01)
    run.append(RunEnded())
    reading.join()
    assert batches == [[TextDelta("a")], [RunEnded()]]


def test_taken_events_end_the_silence() -> None:
    run, reader = new_run(), RunReader(1.5)
    reader.take = lambda _: True
    batches = run.follow(reader)

    def speak() -> None:
        for _ in range(8):
            sleep(0.2)
            run.append(TextDelta("a"))

    spoken = spawn(speak)
    assert next(batches) == []
    assert spoken.dead


def test_events_that_a_client_does_not_see_leave_its_stream_silent() -> None:
    run, sent = new_run(), []

    def offer(piece: bytes) -> bytes:
        sent.append(piece)
        return b""

    def think() -> None:
        for _ in range(10):
            sleep(0.05)
            run.append(ReasoningDelta("hm"))
            run.append(StepEnded(Usage()))
        run.append(RunEnded())

    stream = ChunkStream(run, "openclaw", include_usage=False, quiet_seconds=0.12, offer=offer)
    thought = spawn(think)
    pieces = list(stream)
    thought.join()
    assert COMMENT in pieces
    assert sent == []


def test_status_is_sent_after_the_quiet_time_whatever_the_client_does_not_see() -> None:
    run = new_run()
    run.begin()
    stream = ChunkStream(run, "openclaw", include_usage=False, quiet_seconds=0.2)

    def think() -> None:
        sleep(0.15)
        run.append(ReasoningDelta("hm"))
        sleep(0.15)

    thought = spawn(think)
    began_at = monotonic()
    stream.begin()
    assert monotonic() - began_at > 0.18
    assert not thought.dead  # the quiet time does not begin again with a thought
    thought.join()


def test_numbers_count_what_the_client_does_not_see_before_the_status() -> None:
    run = new_run()
    run.accepted = replace(run.accepted, detached=True)  # its events have numbers
    run.begin()
    stream = ChunkStream(run, "openclaw", include_usage=False, quiet_seconds=30)

    def speak() -> None:
        for event in (ReasoningDelta("hm"), StepEnded(Usage()), TextDelta("a"), RunEnded()):
            sleep(0.01)
            run.append(event)

    spoken = spawn(speak)
    stream.begin()
    pieces = b"".join(stream)
    spoken.join()
    assert b'"sequence_number":6' in pieces
