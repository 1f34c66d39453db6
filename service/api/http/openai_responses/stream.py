"""A response as Server-Sent Events."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator

import orjson

from service.agent.event_log import ENDED
from service.agent.events import RunEnded, RunEvent
from service.agent.run import Run
from service.api.http.chat_chunks import DONE
from service.api.http.http_response import FinalPiece
from service.api.http.openai_responses.output import ResponseFold, StreamedEvent
from service.api.http.openai_responses.stored import StoredEvents
from service.api.http.run_stream import COMMENT, QUIET_SECONDS, Offer, RunStream
from service.core.disconnect import ProbedConnection, watch_disconnect
from service.core.errors import GatewayError
from service.gateway.event_feeds import Watch
from service.storage.database.errors import StoreError

logger = logging.getLogger("openclaw.http")


class ResponseStream(RunStream):
    """The events of a response."""

    def __init__(
        self,
        run: Run,
        fold: ResponseFold,
        shows: Collection[str],
        quiet_seconds: float = QUIET_SECONDS,
        offer: Offer | None = None,
    ) -> None:
        super().__init__(run, shows, quiet_seconds, offer)
        self._fold = fold

    def _opening(self) -> bytes:
        return encode_events(self._fold.begin())

    def _encode(self, event: RunEvent) -> bytes:
        encoded = encode_events(self._fold.add(event, self._run.ended_at))
        return encoded + DONE if isinstance(event, RunEnded) else encoded


class StoredResponseStream:
    """The body of a stream that is read again, which begins at once.

    It ends with the run, or earlier if the gateway stops.
    """

    def __init__(self, watch: Watch, events: StoredEvents, connection: ProbedConnection | None) -> None:
        self._watch = watch
        self._events = events
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        """Yield events as they come, and a comment line after each quiet time."""
        yield COMMENT + encode_events(self._events.begin())
        with watch_disconnect(self._connection, self._watch.close):
            for batch in self._watch:
                try:
                    encoded = encode_events(self._events.translate(batch))
                except (StoreError, GatewayError) as error:
                    logger.warning("a response can no longer be streamed: %s", error)
                    return
                is_last = bool(batch) and batch[-1].kind == ENDED
                yield FinalPiece(encoded + DONE) if is_last else encoded or COMMENT

    def close(self) -> None:
        """Stop watching; called by the server."""
        self._watch.close()


def encode_events(events: Iterable[StreamedEvent]) -> bytes:
    """Encode events as Server-Sent Events."""
    return b"".join(
        b"event: %b\ndata: %b\n\n"
        % (
            event.kind.encode(),
            orjson.dumps({"type": event.kind, "sequence_number": event.number, **event.members}),
        )
        for event in events
    )
