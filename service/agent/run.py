"""A run: an append-only log of events that one greenlet writes and any number of readers follow at their own pace.

The reader never holds the run: a door that wants the run to end with its client says `abort()`. What nobody needs
apart any more is merged, so that a slow or an absent reader costs what was said and not how it came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from service.agent.events import RunEnded, RunEvent, RunStarted, TextDelta, TextRetracted, ToolCallRequested, ToolEnded
from service.core.concurrency import CancelScope, Event, Timeout
from service.core.dataclass import record
from service.core.errors import internal_error
from service.core.messages import StopReason, ToolCall, Usage

logger = logging.getLogger("openclaw.runs")

_WITH_TEXT = (TextDelta, ToolEnded)

#: Events that are left as they came; beyond so many the log is looked through for what can be merged.
_UNMERGED = 256

#: The longest text that deltas are merged into, so that merging again and again does not copy all of it.
_MERGED_CHARACTERS = 64 * 1024


@record
class RunResult:
    """A finished run, folded: all its text, the calls it asks of the caller, why it stopped, what it used."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    stop_reason: StopReason
    usage: Usage


@dataclass(slots=True, eq=False)
class _Reader:
    """How far a reader has come, and what wakes it."""

    position: int = 0
    news: Event = field(default_factory=Event)


class Run:
    """One run of an agent.

    `id` is the run's and the answer's (`chatcmpl_<uuid>`), `created_at` seconds since 1970, `door` where it was
    asked for. `scope` surrounds the part of the run that may be cut. A `kept` run goes on when its caller leaves.
    `observer` is told each event as it is appended.
    """

    def __init__(
        self,
        run_id: str,
        session_key: str,
        agent_id: str,
        created_at: float,
        *,
        kept: bool = False,
        door: str = "http",
    ) -> None:
        self.id = run_id
        self.session_key = session_key
        self.agent_id = agent_id
        self.created_at = created_at
        self.ended_at: float | None = None
        self.kept = kept
        self.door = door
        self.scope = CancelScope()
        self.characters = 0
        self.observer: Observer | None = None
        self._log: list[RunEvent] = []
        self._readers: list[_Reader] = []
        self._ended = Event()
        self._merge_at = _UNMERGED

    def append(self, event: RunEvent) -> None:
        """Tell the readers; for the run itself. Nothing may follow a `RunEnded`."""
        self._log.append(event)
        self.characters += len(event.text) if isinstance(event, _WITH_TEXT) else 0
        for reader in self._readers:
            reader.news.set()
        if len(self._log) >= self._merge_at or isinstance(event, RunEnded):
            self._merge()
        if self.observer is not None:
            self.observer(self, event)
        if isinstance(event, RunEnded):
            self._ended.set()

    def abort(self) -> None:
        """End the run soon: the upstream request is dropped and what was said is kept. After the end a no-op."""
        self.scope.cancel()

    def leave(self) -> None:
        """The caller is gone: the run ends, too, unless it is kept for whoever asks again."""
        if not self.kept:
            self.abort()

    def follow(self, quiet_seconds: float | None = None) -> Iterator[Sequence[RunEvent]]:
        """Yield everything that happened, from the beginning on, in batches; the last one ends with `RunEnded`.

        Waits for news; whenever none came for `quiet_seconds` it yields an empty batch. Pieces of text that came while
        the reader was busy may reach it in one.
        """
        reader, quiet = _Reader(), Timeout(quiet_seconds)
        self._readers.append(reader)
        try:
            while True:
                reader.news.clear()
                batch = self._log[reader.position :]
                if batch or not _comes(reader.news, quiet):
                    reader.position += len(batch)
                    yield batch
                    if batch and isinstance(batch[-1], RunEnded):
                        return
        finally:
            self._readers.remove(reader)

    @property
    def end(self) -> RunEnded | None:
        """How the run ended; `None` while it goes on."""
        last = self._log[-1] if self._log else None
        return last if isinstance(last, RunEnded) else None

    @property
    def text(self) -> str:
        """All text so far that holds."""
        text, pieces = "", []
        for event in self._log:
            if isinstance(event, TextDelta):
                pieces.append(event.text)
            elif isinstance(event, TextRetracted):
                text = (text + "".join(pieces))[: -event.characters]
                pieces.clear()
        return text + "".join(pieces)

    def wait_for_end(self, timeout_seconds: float | None) -> RunEnded | None:
        """Wait for the end and return it; `None` when it has not come after `timeout_seconds`."""
        self._ended.wait(timeout_seconds)
        return self.end

    def wait(self) -> RunResult:
        """Wait for the end and return the whole answer; raises the `GatewayError` the run failed with."""
        end = self.wait_for_end(None)
        if end is None:
            raise internal_error()
        if end.error is not None:
            raise end.error.copy()
        calls = tuple(event.call for event in self._log if isinstance(event, ToolCallRequested))
        return RunResult(self.text, calls, end.stop_reason, end.usage)

    def _merge(self) -> None:
        """Join neighbouring pieces of text, but for those a reader stands between."""
        barriers = {reader.position for reader in self._readers}
        moved: dict[int, int] = {}
        merged: list[RunEvent] = []
        pieces: list[str] = []
        size = 0
        for position, event in enumerate(self._log):
            text = event.text if isinstance(event, TextDelta) else ""
            if pieces and (position in barriers or not text or size + len(text) > _MERGED_CHARACTERS):
                merged.append(TextDelta("".join(pieces)))
                pieces, size = [], 0
            if position in barriers:
                moved[position] = len(merged)
            if text:
                pieces.append(text)
                size += len(text)
            else:
                merged.append(event)
        if pieces:
            merged.append(TextDelta("".join(pieces)))
        moved[len(self._log)] = len(merged)
        for reader in self._readers:
            reader.position = moved[reader.position]
        self._log = merged
        self._merge_at = 2 * len(merged) + _UNMERGED


def _comes(news: Event, quiet: Timeout) -> bool:
    try:
        with quiet:
            news.wait()
    except TimeoutError:
        return False
    return True


#: Is told that a run began and then each of its events, in order, before anybody else comes to run: it must not wait.
Observer = Callable[[Run, RunStarted | RunEvent], None]
