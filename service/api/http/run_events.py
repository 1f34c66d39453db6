"""A run's events as Server-Sent Events."""

from __future__ import annotations

from collections.abc import Iterator

from service.core.disconnect import ProbedConnection, watch_disconnect
from service.gateway.event_feeds import Watch
from service.storage.runs.events import LoggedEvent

#: Maximum silence of a stream; then a comment line is sent.
QUIET_SECONDS = 15.0

# Not followed by a blank line: some clients take that for the end of an empty event once they have seen an id.
_COMMENT = b": still working\n"


class RunEventStream:
    """The body of an event stream. It begins at once, and ends with the run, or earlier if the gateway stops."""

    def __init__(self, watch: Watch, connection: ProbedConnection | None) -> None:
        self._watch = watch
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        """Yield events as they come, and a comment line after each quiet time."""
        yield _COMMENT
        with watch_disconnect(self._connection, self._watch.close):
            for batch in self._watch:
                yield batch.encode(_encode) if batch else _COMMENT

    def close(self) -> None:
        """Stop watching; called by the server."""
        self._watch.close()


def _encode(event: LoggedEvent) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.number, event.kind.encode(), event.data)
