"""A run: its state and its log of events, which one greenlet appends to and any number of readers follow.

Readers never hold the run: a protocol that wants the run to end with its client calls `leave()`. Events that no reader
needs separately are merged, so that a slow or an absent reader costs the size of the text and not the number of pieces.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic

from service.agent.event_merging import PIECES, merge_pieces
from service.agent.events import (
    ReasoningDelta,
    ReasoningRetracted,
    RunEnded,
    RunEvent,
    RunStarted,
    TextDelta,
    TextRetracted,
    ToolCallRequested,
    ToolCallWritten,
    ToolEnded,
)
from service.agent.run_reader import RunReader
from service.core.byte_budget import ByteBudget, Hold
from service.core.concurrency import CancelScope, Event
from service.core.dataclass import record
from service.core.errors import GatewayError, clear_traceback, internal_error
from service.core.messages import Sampling, StopReason, ToolCall, Usage
from service.core.usage import ModelCall
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import AcceptedRun, RunState

logger = logging.getLogger("openclaw.runs")

_WITH_TEXT = (*PIECES, ToolEnded)
_OUTPUT = (TextDelta, ToolCallWritten, ToolCallRequested)
_STARTED = RunStarted()

#: Events that are left as they came; beyond so many the log is searched for what can be merged.
_UNMERGED = 256

#: One event and the end.
_NOTHING_TO_MERGE = 2

#: The longest text of a batch for a reader, so that a reader far behind does not get a copy of the whole log.
_BATCH_CHARACTERS = 256 * 1024

# Memory for output: its text in the log, in pieces and whole in the answer, and three times while it is stored: as
# JSON, as the row's text and within the database. Counted in steps.
_BYTES_A_CHARACTER = 6
_BYTES_AN_EVENT = 100
_COUNTED_BYTES = 64 * 1024

#: Readers are woken when a run begins that was queued for longer.
_LONG_QUEUED_SECONDS = 0.1


@record
class RunResult:
    """A finished run, folded: its text, the calls of the caller's functions, the stop reason and the usage.

    `reasoning` is what led to the text, if the caller wanted to see it.
    """

    text: str
    tool_calls: tuple[ToolCall, ...]
    stop_reason: StopReason
    usage: Usage
    reasoning: str = ""


class Run:
    """One run of an agent, from its acceptance to its end.

    `accepted` has the facts fixed at acceptance, as they are recorded; its id is the answer's, too. `key` is the
    idempotency key it was asked for with: such a run continues when its caller leaves. An `is_replay` run repeats the
    answer of another process or of an earlier time. With `shows_reasoning` its caller sees what the models think; the
    log of other runs may lack it, or retract it. It `has_begun` once it has its session and its slot; one that is
    refused before that never begins. `is_waiting` is set while it waits for an approval, `end` once it has ended.
    `scope` surrounds the work that may be cut, `observer` is called with each event as it is appended, and with
    `RunStarted`. `replaced_tools` are the agent's tools that functions of the caller replace. `step` counts its model
    calls, `model` is the model of the latest one, `usage` that of those that have ended, `model_calls` those that
    count. `request_id` is that of its HTTP request, `caller_trace` the caller's headers of W3C's Trace Context,
    `trace_id` that of its spans, `sampling` the parameters in force. `title` is that of its session if it is the first
    one there. Times in seconds since 1970.

    The output counts in `budget` until the run has ended and every reader has read it. A run that holds too much of it
    fails, and each function of `on_evicted` is called.
    """

    request_id: str | None = None
    caller_trace: Mapping[str, str] | None = None
    trace_id: str | None = None
    sampling = Sampling()
    title: str | None = None
    model: str | None = None
    usage = Usage()
    has_begun = False
    is_waiting = False
    started_at_ms: int | None = None
    first_output_at_ms: int | None = None
    ended_at: float | None = None
    end: RunEnded | None = None
    abort_reason: GatewayError | None = None

    def __init__(
        self,
        accepted: AcceptedRun,
        key: IdempotencyKey | None = None,
        budget: ByteBudget | None = None,
        *,
        is_replay: bool = False,
        shows_reasoning: bool = False,
    ) -> None:
        self.accepted = accepted
        self.id = accepted.id
        self.session_key = accepted.session_key
        self.agent_id = accepted.agent_id
        self.protocol = accepted.protocol
        self.accepted_at = accepted.accepted_at_ms / 1000
        self.key = key
        self.is_replay = is_replay
        self.shows_reasoning = shows_reasoning
        self.scope = CancelScope()
        self.characters = 0
        self.replaced_tools: tuple[str, ...] = ()
        self.on_evicted: list[Callable[[], None]] = []
        self.observer: Observer | None = None
        self.step = 0
        self.model_calls: Sequence[ModelCall] = ()
        self._queued_since = monotonic()
        self._running_since = 0.0
        self._log: list[RunEvent] = []
        self._readers: list[RunReader] = []
        self._ended = Event()
        self._merge_at = _UNMERGED
        self._budget = budget
        self._output: Hold | None = None  # once there is much
        self._uncounted_bytes = 0
        self._kept: Hold | None = None

    @property
    def state(self) -> RunState:
        """`accepted` while it waits for its session and room, then `running` or `waiting`, then a final state."""
        if self.end is not None:
            return self.end.state
        if not self.has_begun:
            return RunState.QUEUED
        return RunState.WAITING if self.is_waiting else RunState.RUNNING

    @property
    def running_seconds(self) -> float:
        """Return the seconds since the run began; 0 while it is queued."""
        return monotonic() - self._running_since if self.has_begun else 0.0

    @property
    def log(self) -> Sequence[RunEvent]:
        """The events so far; pieces of text are joined with time."""
        return self._log

    def _to_ms(self, at: float) -> int:
        """Convert a monotonic time to ms since 1970."""
        return self.accepted.accepted_at_ms + int((at - self._queued_since) * 1000)

    @property
    def queued_ms(self) -> int | None:
        """Milliseconds spent waiting for the session and the slot; `None` if negligible."""
        queued = (self._running_since if self.has_begun else monotonic()) - self._queued_since
        return int(queued * 1000) if queued > _LONG_QUEUED_SECONDS and not self.is_replay else None

    def begin(self) -> None:
        """Mark the run, which has its session and its slot, as running."""
        self._running_since = monotonic()
        self.has_begun, self.started_at_ms = True, self._to_ms(self._running_since)
        if self.observer is not None:
            self.observer(self, _STARTED)
        if self._running_since - self._queued_since > _LONG_QUEUED_SECONDS:
            for reader in self._readers:
                reader.wake()

    def pause_output(self) -> None:
        """Wait, for the run itself and before it appends more, while the process has too much output in flight."""
        if self._output is not None:
            self._output.pause_output()

    def append(self, event: RunEvent) -> None:
        """Append to the log, for the run itself. Nothing may follow a `RunEnded`."""
        self._log.append(event)
        if isinstance(event, RunEnded):
            self.end = event
            if event.error is not None:
                clear_traceback(event.error)  # the end is kept for a while
        if self.first_output_at_ms is None and isinstance(event, _OUTPUT):
            self.first_output_at_ms = self._to_ms(monotonic())
        characters = len(event.text) if isinstance(event, _WITH_TEXT) else 0
        self.characters += characters
        self._uncounted_bytes += characters * _BYTES_A_CHARACTER + _BYTES_AN_EVENT
        if self._budget is not None and self._uncounted_bytes >= _COUNTED_BYTES:
            self._output = self._output or self._budget.hold(self._evict)
            self._output.add(self._uncounted_bytes)
            self._uncounted_bytes = 0
        for reader in self._readers:
            reader.add(event)
        if len(self._log) >= self._merge_at or (self.end is not None and len(self._log) > _NOTHING_TO_MERGE):
            self._merge()
        if self.observer is not None:
            self.observer(self, event)
        if self.end is not None:
            self._ended.set()
            self._release()

    def retain(self, hold: Hold) -> None:
        """Keep `hold`, the memory of the run's request, counted until the run has ended."""
        if self.end is None and self._kept is None:
            self._kept = hold.share()

    def _release(self) -> None:
        """Give memory back to the budget: the request's after the end, the output's once nobody reads it."""
        if self.end is None:
            return
        if self._kept is not None:
            self._kept.release()
            self._kept = None
        if self._output is not None and not self._readers:
            self._output.release()
            self._output = None

    def _evict(self) -> None:
        text = "The gateway has more data in flight than it may (gateway.maxInFlightBytes), most of it from this run."
        self.abort(GatewayError("overloaded", f"{text} Read the answer faster, or try again soon."))
        for callback in tuple(self.on_evicted):
            callback()

    def abort(self, reason: GatewayError | None = None) -> None:
        """End the run soon: the upstream request is dropped and its output so far is kept. After the end a no-op.

        `reason` is the error to end with.
        """
        if self.end is not None:
            return
        if not self.scope.cancelled:
            self.abort_reason = reason
        self.scope.cancel()

    def leave(self) -> None:
        """End the run because its caller is gone.

        It continues if it is detached, or if it has begun and its answer can be asked for again.
        """
        stays = self.accepted.detached or (self.key is not None and self.has_begun)
        if self.is_replay or not stays:
            self.abort()

    def follow(self, reader: RunReader | None = None) -> Iterator[Sequence[RunEvent]]:
        """Yield all events from the first on, in batches; the last one ends with `RunEnded`.

        Waits for news and yields an empty batch whenever `reader` got none for its quiet time; the beginning of a run
        that was queued is news. Pieces of text that came while the reader was busy may be merged.
        """
        reader = reader or RunReader()
        self._readers.append(reader)
        try:
            while True:
                batch = self._next_batch(reader.position)
                if batch or not reader.has_news():
                    reader.position += len(batch)
                    yield batch
                    if batch and isinstance(batch[-1], RunEnded):
                        return
        finally:
            self._readers.remove(reader)
            self._release()

    def _next_batch(self, position: int) -> list[RunEvent]:
        batch = self._log[position : position + _UNMERGED]
        size = 0
        for count, event in enumerate(batch, 1):
            size += len(event.text) if isinstance(event, _WITH_TEXT) else 0
            if size >= _BATCH_CHARACTERS:
                return batch[:count]
        return batch

    @property
    def text(self) -> str:
        """The text so far, without what was retracted."""
        return self._fold(TextDelta, TextRetracted)

    @property
    def reasoning(self) -> str:
        """The reasoning so far that its caller sees, without what was retracted."""
        return self._fold(ReasoningDelta, ReasoningRetracted) if self.shows_reasoning else ""

    def _fold(
        self, delta: type[TextDelta | ReasoningDelta], retraction: type[TextRetracted | ReasoningRetracted]
    ) -> str:
        text, pieces = "", []
        for event in self._log:
            if isinstance(event, delta):
                pieces.append(event.text)
            elif isinstance(event, retraction):
                text = (text + "".join(pieces))[: -event.characters]
                pieces.clear()
        return text + "".join(pieces)

    def wait_for_end(self, timeout_seconds: float | None) -> RunEnded | None:
        """Wait for the end and return it; `None` when it has not come after `timeout_seconds`."""
        self._ended.wait(timeout_seconds)
        return self.end

    def wait(self) -> RunResult:
        """Wait for the end and return the result; raises the `GatewayError` the run failed with."""
        self._ended.wait()
        end = self.end
        if end is None:
            raise internal_error()
        if end.error is not None:
            raise end.error.copy()
        calls = tuple(event.call for event in self._log if isinstance(event, ToolCallRequested))
        return RunResult(self.text, calls, end.stop_reason, end.usage, self.reasoning)

    def _merge(self) -> None:
        """Join neighbouring pieces, except across a reader's position."""
        self._log, moved = merge_pieces(self._log, {reader.position for reader in self._readers})
        for reader in self._readers:
            reader.position = moved[reader.position]
        self._merge_at = 2 * len(self._log) + _UNMERGED


#: Called with `RunStarted` and then each event, in order, before any other greenlet runs: it must not wait.
Observer = Callable[[Run, RunStarted | RunEvent], None]
