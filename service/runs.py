"""A run: an append-only log of events that one greenlet writes and any number of readers follow at their own pace.

The reader never holds the run: a door that wants the run to end with its client says `abort()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.concurrency import CancelScope, Event
from service.errors import internal_error
from service.events import RunEnded, RunEvent, TextDelta, ToolCallRequested
from service.messages import StopReason, ToolCall, Usage


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished run, folded: all its text, the calls it asks of the caller, why it stopped, what it used."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    stop_reason: StopReason
    usage: Usage


class Run:
    """One run of an agent.

    `id` is the run's and the answer's (`chatcmpl_<uuid4>`), `created_at` seconds since 1970. `scope` surrounds the
    part of the run that may be cut. A `kept` run goes on when its caller leaves.
    """

    def __init__(self, run_id: str, session_key: str, agent_id: str, created_at: float, *, kept: bool = False) -> None:
        self.id = run_id
        self.session_key = session_key
        self.agent_id = agent_id
        self.created_at = created_at
        self.kept = kept
        self.scope = CancelScope()
        self._log: list[RunEvent] = []
        self._readers: list[Event] = []

    def append(self, event: RunEvent) -> None:
        """Tell the readers; for the run itself. Nothing may follow a `RunEnded`."""
        self._log.append(event)
        for reader in self._readers:
            reader.set()

    def abort(self) -> None:
        """End the run soon: the upstream request is dropped and what was said is kept. After the end a no-op."""
        self.scope.cancel()

    def leave(self) -> None:
        """The caller is gone: the run ends, too, unless it is kept for whoever asks again."""
        if not self.kept:
            self.abort()

    def follow(self, quiet_seconds: float | None = None) -> Iterator[Sequence[RunEvent]]:
        """Yield everything that happened, from the beginning on, in batches; the last one ends with `RunEnded`.

        Waits for news; whenever none came for `quiet_seconds` it yields an empty batch.
        """
        position = 0
        news = Event()
        self._readers.append(news)
        try:
            while True:
                news.clear()
                batch = self._log[position:]
                if batch or not news.wait(quiet_seconds):
                    position += len(batch)
                    yield batch
                    if batch and isinstance(batch[-1], RunEnded):
                        return
        finally:
            self._readers.remove(news)

    def wait(self) -> Answer:
        """Wait for the end and return the whole answer; raises the `GatewayError` the run failed with."""
        events = [event for batch in self.follow() for event in batch]
        end = events[-1]
        if not isinstance(end, RunEnded):
            raise internal_error()
        if end.error is not None:
            raise end.error
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        calls = tuple(event.call for event in events if isinstance(event, ToolCallRequested))
        return Answer(text, calls, end.stop_reason, end.usage)
