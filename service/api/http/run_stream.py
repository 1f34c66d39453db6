"""The output of a run as an event stream for the caller that started it, whatever its events look like."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from service.agent.events import (
    ReasoningDelta,
    RunEnded,
    RunEvent,
    TextDelta,
    ToolCallRequested,
    ToolCallWritten,
    ToolEnded,
    ToolStarted,
)
from service.agent.request import REASONING, TOOLS
from service.agent.run import Run
from service.agent.run_reader import RunReader
from service.api.http.http_response import FinalPiece, FramedPiece

logger = logging.getLogger("openclaw.http")

#: Sends as much of a piece of a stream as the client's socket takes at once; returns the rest, as it has to be sent.
Offer = Callable[[bytes], bytes]

#: Maximum silence of a stream once its run has begun; then a comment line is sent.
QUIET_SECONDS = 15.0

#: Events that are visible to every caller, and by their kind to those that ask for them.
_VISIBLE_EVENTS = (TextDelta, ToolCallWritten, ToolCallRequested, RunEnded)
_EVENTS_OF_KIND = {REASONING: (ReasoningDelta,), TOOLS: (ToolStarted, ToolEnded)}

#: Keeps a silent stream open.
COMMENT = b": still working\n\n"


class RunStream(ABC):
    """The events of a run as the bytes of an event stream.

    Iterated at once, it begins before the run's first output, after `begin` with that. After `quiet_seconds` without
    visible events a comment line is sent. `shows` are the kinds of events that the caller asks for beside the text.
    """

    def __init__(self, run: Run, shows: Collection[str], quiet_seconds: float, offer: Offer | None = None) -> None:
        self._run = run
        self._visible: tuple[type[RunEvent], ...] = _VISIBLE_EVENTS
        for kind in shows:
            if kind != REASONING or run.shows_reasoning:
                self._visible += _EVENTS_OF_KIND[kind]
        self._offer = offer
        self._rest = b""
        self._reader = RunReader(quiet_seconds, self._visible)
        self._batches = run.follow(self._reader)
        self._first: list[RunEvent] = []

    def begin(self) -> None:
        """Wait for the first event that is visible to the caller, at most `quiet_seconds` once the run has begun.

        Raises the `GatewayError` of a run that fails before that event, while the status can still be chosen.
        """
        visible: list[RunEvent] = []
        self._reader.take = self._take_hidden
        try:
            for batch in self._batches:
                self._first += batch
                visible = [event for event in batch if isinstance(event, self._visible)]
                if visible or (not batch and self._run.has_begun):
                    break
        finally:
            self._reader.take = None  # it refers to this object
        if len(visible) == 1 and isinstance(visible[0], RunEnded) and visible[0].error is not None:
            raise visible[0].error.copy()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the opening and the first events, then events as they come, `[DONE]` last; never raises."""
        yield self._to_piece(self._first, self._opening())
        if self._first and isinstance(self._first[-1], RunEnded):
            return
        self._reader.take = None if self._offer is None else partial(self._take, self._offer)
        try:
            for batch in self._batches:
                if self._rest:
                    rest, self._rest = FramedPiece(self._rest), b""
                    yield rest
                elif not batch:
                    yield COMMENT
                if batch:
                    yield self._to_piece(batch)
        finally:
            self._reader.take = None  # it refers to this object

    def _take_hidden(self, event: RunEvent) -> bool:
        """Keep an event for later if the client does not see it, so that the wait for those that it sees goes on."""
        if isinstance(event, self._visible):
            return False
        self._first.append(event)
        return True

    def _take(self, offer: Offer, event: RunEvent) -> bool:
        """Send an event at once, from the greenlet of the run, as far as the client's socket takes it."""
        if isinstance(event, RunEnded):
            return False
        try:
            piece = self._encode(event)
        except Exception:
            logger.exception("an event of run %s could not be encoded", self._run.id)
            return False
        self._rest = offer(piece) if piece else b""
        if self._rest:
            self._reader.interrupt()
        return True

    def _to_piece(self, batch: Sequence[RunEvent], opening: bytes = b"") -> bytes:
        piece = opening + b"".join(map(self._encode, batch))
        return FinalPiece(piece) if batch and isinstance(batch[-1], RunEnded) else piece

    @abstractmethod
    def _opening(self) -> bytes:
        """Return what comes before the first event."""

    @abstractmethod
    def _encode(self, event: RunEvent) -> bytes:
        """Encode an event of the run; the last one with the end of the stream."""
