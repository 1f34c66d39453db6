"""The registry of runs: what is found, for how long, who is told; and logs that stay small."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from service.agent.events import RunEnded, RunEvent, RunStarted, TextDelta, ToolEnded, ToolStarted
from service.agent.run import Run
from service.core.concurrency import sleep, spawn
from service.core.errors import GatewayError
from service.core.messages import ToolCall
from service.gateway.run_registry import Retention, RunRegistry

CALL = ToolCall("c", "read", "{}")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def new_run(run_id: str = "r1", session: str = "agent:main:x", door: str = "http") -> Run:
    return Run(run_id, session, "main", 1.0, door=door)


def text_of(events: Sequence[RunEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_a_run_is_found_while_it_goes_on_and_for_a_while_after() -> None:
    clock = Clock()
    registry = RunRegistry(clock, Retention(seconds=60))
    run = new_run()
    registry.add(run)
    assert (registry.find("r1"), len(registry), registry.running("agent:main:x")) == (run, 1, (run,))
    run.append(TextDelta("hi"))
    run.append(RunEnded())
    assert (len(registry), registry.running(), registry.running("agent:main:x")) == (0, (), ())
    assert registry.find("r1") is run
    assert run.ended_at == 1000.0
    clock.now += 61
    assert registry.find("r1") is None


def test_what_is_kept_is_bounded_for_each_door() -> None:
    registry = RunRegistry(Clock(), Retention(runs=3, characters=100))
    for number in range(10):
        run = new_run(f"http-{number}")
        registry.add(run)
        run.append(RunEnded())
    other = new_run("rpc-0", door="rpc")
    registry.add(other)
    other.append(TextDelta("x" * 60))
    other.append(RunEnded())
    assert [number for number in range(10) if registry.find(f"http-{number}")] == [7, 8, 9]
    assert registry.find("rpc-0") is other
    long = new_run("rpc-1", door="rpc")
    registry.add(long)
    long.append(TextDelta("x" * 60))
    long.append(RunEnded())
    assert registry.find("rpc-0") is None
    assert registry.find("rpc-1") is long


def test_onlookers_are_told_everything_in_order_until_they_leave() -> None:
    registry, seen = RunRegistry(Clock()), []
    leave = registry.subscribe(lambda run, event: seen.append((run.id, event)))
    run = new_run()
    registry.add(run)
    run.append(TextDelta("a"))
    run.append(RunEnded())
    leave()
    registry.add(new_run("r2"))
    assert seen == [("r1", RunStarted()), ("r1", TextDelta("a")), ("r1", RunEnded())]


def test_an_onlooker_that_fails_harms_neither_the_run_nor_the_others() -> None:
    registry, seen = RunRegistry(Clock()), []

    def fail(run: Run, event: RunStarted | RunEvent) -> None:
        raise RuntimeError(f"{run.id} {event}")

    registry.subscribe(fail)
    registry.subscribe(lambda _, event: seen.append(event))
    run = new_run()
    registry.add(run)
    run.append(RunEnded())
    assert seen == [RunStarted(), RunEnded()]


def test_waiting_for_the_end_may_be_in_vain() -> None:
    run = new_run()
    assert run.wait_for_end(0.01) is None
    run.append(TextDelta("a"))
    end = RunEnded(error=GatewayError("run_aborted", "x"))
    spawn(run.append, end)
    assert run.wait_for_end(10) is end
    assert run.wait_for_end(None) is end


def test_a_long_answer_that_nobody_reads_is_kept_as_text_not_as_pieces() -> None:
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


def test_a_reader_that_fell_behind_misses_nothing() -> None:
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


@settings(max_examples=150, deadline=None)
@given(bursts=st.lists(EVENTS, max_size=8), copies=st.integers(1, 20))
def test_however_it_is_merged_every_reader_gets_the_same(bursts: list[list[RunEvent]], copies: int) -> None:
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
