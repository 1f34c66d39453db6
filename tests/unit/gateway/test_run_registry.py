"""The registry of runs: lookup, retention, observers, merged logs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs import new_run

from service.agent.events import RunEnded, RunEvent, RunStarted, TextDelta, ToolEnded, ToolStarted
from service.agent.run import Run
from service.core.concurrency import sleep, spawn
from service.core.errors import GatewayError
from service.core.messages import ToolCall
from service.gateway.run_registry import Retention, RunRegistry
from service.storage.runs.records import Protocol, RunState

CALL = ToolCall("c", "read", "{}")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def text_of(events: Sequence[RunEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def begin(registry: RunRegistry, run: Run) -> Run:
    registry.add(run)
    run.begin()
    return run


def test_run_is_found_in_every_state_and_forgotten_after_its_retention() -> None:
    clock = Clock()
    registry = RunRegistry(clock, Retention(seconds=60))
    run = new_run("r1")
    registry.add(run)
    assert (registry.find("r1"), registry.active("agent:main:x"), registry.running()) == (run, (run,), ())
    states = [run.state]
    run.begin()
    assert (registry.find("r1"), registry.running("agent:main:x"), registry.running()) == (run, (run,), (run,))
    states.append(run.state)
    run.append(TextDelta("hi"))
    run.append(RunEnded())
    assert (registry.active(), registry.running(), registry.active("agent:main:x")) == ((), (), ())
    assert registry.find("r1") is run
    assert [*states, run.state] == [RunState.QUEUED, RunState.RUNNING, RunState.OK]
    assert run.ended_at == 1000.0
    clock.now += 61
    assert registry.find("r1") is None


def test_run_refused_while_queued_is_found_with_its_error() -> None:
    registry = RunRegistry(Clock())
    run = new_run("r1")
    registry.add(run)
    run.append(RunEnded(error=GatewayError("session_busy", "x")))
    assert registry.find("r1") is run
    assert (run.has_begun, run.state) == (False, RunState.ERROR)


def test_discarded_run_is_forgotten_at_once() -> None:
    registry = RunRegistry(Clock())
    run = new_run("r1")
    registry.add(run)
    registry.discard(run)
    run.append(RunEnded(error=GatewayError("invalid_value", "x")))
    assert (registry.find("r1"), registry.active(), registry.active("agent:main:x")) == (None, (), ())


def test_retention_is_bounded_for_each_protocol() -> None:
    registry = RunRegistry(Clock(), Retention(runs=3, characters=100))
    for number in range(10):
        begin(registry, new_run(f"http-{number}")).append(RunEnded())
    other = begin(registry, new_run("rpc-0", protocol=Protocol.WEBSOCKET))
    other.append(TextDelta("x" * 60))
    other.append(RunEnded())
    assert [number for number in range(10) if registry.find(f"http-{number}")] == [7, 8, 9]
    assert registry.find("rpc-0") is other
    long = begin(registry, new_run("rpc-1", protocol=Protocol.WEBSOCKET))
    long.append(TextDelta("x" * 60))
    long.append(RunEnded())
    assert registry.find("rpc-0") is None
    assert registry.find("rpc-1") is long


def test_observer_gets_every_event_in_order_until_it_unsubscribes() -> None:
    registry, seen = RunRegistry(Clock()), []
    unsubscribe = registry.subscribe(lambda run, event: seen.append((run.id, event)))
    run = begin(registry, new_run("r1"))
    run.append(TextDelta("a"))
    run.append(RunEnded())
    unsubscribe()
    begin(registry, new_run("r2"))
    assert seen == [("r1", RunStarted()), ("r1", TextDelta("a")), ("r1", RunEnded())]


def test_observer_gets_nothing_of_refused_and_replayed_runs() -> None:
    registry, seen = RunRegistry(Clock()), []
    registry.subscribe(lambda _, event: seen.append(event))
    refused, replay = new_run("r1"), new_run("r2")
    replay.is_replay = True
    registry.add(refused)
    refused.append(RunEnded(error=GatewayError("session_busy", "x")))
    begin(registry, replay)
    assert registry.running() == ()
    replay.append(RunEnded())
    assert seen == []


def test_observer_that_fails_harms_neither_the_run_nor_other_observers() -> None:
    registry, seen = RunRegistry(Clock()), []

    def fail(run: Run, event: RunStarted | RunEvent) -> None:
        raise RuntimeError(f"{run.id} {event}")

    registry.subscribe(fail)
    registry.subscribe(lambda _, event: seen.append(event))
    begin(registry, new_run("r1")).append(RunEnded())
    assert seen == [RunStarted(), RunEnded()]


def test_wait_for_end_times_out() -> None:
    run = new_run()
    assert run.wait_for_end(0.01) is None
    run.append(TextDelta("a"))
    end = RunEnded(error=GatewayError("run_aborted", "x"))
    spawn(run.append, end)
    assert run.wait_for_end(10) is end
    assert run.wait_for_end(None) is end


def test_long_unread_answer_is_merged_into_one_text() -> None:
    run = new_run()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(200_000):
            run.append(TextDelta(f"{number:04x}"))
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert run.characters > 800_000
    assert kept < 4 * run.characters
    run.append(RunEnded())
    assert sum(len(batch) for batch in run.follow()) < 100


def test_slow_reader_misses_nothing() -> None:
    run = new_run()
    read: list[RunEvent] = []
    reader = run.follow()
    run.append(TextDelta("0 "))
    read += next(reader)
    for number in range(1, 5000):
        run.append(TextDelta(f"{number} "))
        if number % 1700 == 0:
            read += next(reader)
    run.append(RunEnded())
    read += [event for batch in reader for event in batch]
    assert text_of(read) == "".join(f"{number} " for number in range(5000))
    assert len(read) < 2000


EVENTS = st.lists(
    st.text(max_size=3).map(TextDelta)
    | st.just(ToolStarted(CALL))
    | st.text(max_size=3).map(lambda text: ToolEnded(CALL, text, failed=False)),
    max_size=60,
)


@settings(max_examples=150)
@given(bursts=st.lists(EVENTS, max_size=8), copies=st.integers(1, 20))
def test_every_reader_gets_same_events_however_log_is_merged(bursts: list[list[RunEvent]], copies: int) -> None:
    run = new_run()
    early: list[RunEvent] = []
    middle: list[RunEvent] = []

    def read(into: list[RunEvent]) -> None:
        for batch in run.follow():
            into.extend(batch)

    readers = [spawn(read, early)]
    for index, burst in enumerate(bursts):
        for event in burst * copies:
            run.append(event)
        if index % 2:
            sleep(0)
        if index == 1:
            readers.append(spawn(read, middle))
    run.append(RunEnded())
    for reader in readers:
        reader.join(timeout=10)
    late = [event for batch in run.follow() for event in batch]
    whole = [event for burst in bursts for event in burst * copies]
    for read_events in (early, late, *([middle] if len(readers) > 1 else [])):
        assert text_of(read_events) == text_of(whole)
        others = [event for event in read_events if not isinstance(event, TextDelta)]
        assert others == [event for event in [*whole, RunEnded()] if not isinstance(event, TextDelta)]
