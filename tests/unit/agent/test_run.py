"""Runs: one log, many readers; scopes that can be cancelled; connections that are watched."""

from __future__ import annotations

import socket

import pytest
from support.runs import new_run

from service.agent.events import RunEnded, RunEvent, TextDelta, ToolCallRequested
from service.api.http.chat_response import ChunkStream
from service.core.concurrency import Cancelled, CancelScope, Deadline, deadline, sleep, spawn, watch_hangup
from service.core.errors import GatewayError
from service.core.messages import StopReason, ToolCall, Usage


def test_every_reader_gets_everything_from_the_beginning() -> None:
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


def test_a_reader_that_comes_after_the_end_gets_it_in_one_batch() -> None:
    run = new_run()
    for event in (TextDelta("a"), RunEnded()):
        run.append(event)
    assert list(run.follow()) == [[TextDelta("a"), RunEnded()]]


def test_silence_is_an_empty_batch() -> None:
    run = new_run()
    batches = run.follow(quiet_seconds=0.01)
    assert next(batches) == []
    run.append(RunEnded())
    assert list(batches) == [[RunEnded()]]


def test_the_answer_is_all_text_and_all_calls() -> None:
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


def test_waiting_for_a_run_that_failed_raises_its_error() -> None:
    run = new_run()
    run.append(RunEnded(error=GatewayError("provider_error", "it broke")))
    with pytest.raises(GatewayError, match="it broke"):
        run.wait()


def test_a_quiet_stream_says_a_comment_line() -> None:
    run = new_run()
    stream = iter(ChunkStream(run, "openclaw", include_usage=False, quiet_seconds=0.01))
    assert b'"role":"assistant"' in next(stream)
    assert next(stream).startswith(b":")
    run.append(RunEnded())
    assert next(stream).endswith(b"data: [DONE]\n\n")


def test_cancelling_ends_what_waits_inside() -> None:
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
    worker.join(timeout=5)
    assert ended == [True]


def test_what_is_cancelled_before_it_begins_does_not_begin() -> None:
    scope = CancelScope()
    scope.cancel()
    with pytest.raises(Cancelled), scope:
        pytest.fail("the block was entered")


def test_cancelling_after_the_block_does_nothing() -> None:
    scope = CancelScope()
    with scope:
        pass
    scope.cancel()
    sleep(0.01)


def test_cancelling_in_the_moment_the_block_is_left_does_nothing() -> None:
    scope = CancelScope()
    with scope:
        scope.cancel()
    sleep(0.01)


def test_a_deadline_ends_its_own_block_only() -> None:
    with pytest.raises(Deadline), deadline(0.01):
        sleep(5)
    with deadline(None):
        sleep(0)


def test_a_peer_that_hangs_up_is_noticed_once() -> None:
    ours, theirs = socket.socketpair()
    noticed: list[bool] = []
    with ours, watch_hangup(ours, lambda: noticed.append(True)):
        sleep(0.01)
        assert noticed == []
        theirs.close()
        sleep(0.05)
    assert noticed == [True]


def test_a_peer_that_speaks_has_not_hung_up_and_its_bytes_stay() -> None:
    ours, theirs = socket.socketpair()
    noticed: list[bool] = []
    with ours, theirs:
        with watch_hangup(ours, lambda: noticed.append(True)):
            theirs.sendall(b"next")
            sleep(0.05)
        assert noticed == []
        assert ours.recv(4) == b"next"
