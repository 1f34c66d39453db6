"""The client of a request that waits for a run, and the stream that it reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

from service.agent.request import AgentRequest
from service.agent.run import Run
from service.api.http.connexion_app import PRINCIPAL_KEY
from service.api.http.http_response import REPLAYED, RUN_ID_HEADER
from service.api.http.run_stream import Offer
from service.core.byte_budget import HOLD_KEY
from service.core.concurrency import CancelScope, sleep, spawn
from service.core.disconnect import watch_disconnect
from service.core.errors import GatewayError
from service.core.logs import AccessEntry, access_entry
from service.core.principal import Principal
from service.gateway.gateway import Gateway
from service.storage.sessions.keys import encode_session_key

logger = logging.getLogger("openclaw.http")

_CALLER_LEFT = 499  # nginx's status for it
_LAST_READ_SECONDS = 0.25
_WITHOUT_RUN = (401, 405)  # statuses whose responses name no run, which a scripted model may end with all the same


def run_headers(run: Run) -> list[tuple[str, str]]:
    """Build the headers of a successful answer."""
    return [("x-openclaw-session-key", encode_session_key(run.session_key)), *delivery_headers(run)]


def delivery_headers(run: Run) -> list[tuple[str, str]]:
    """Build the headers of answers and errors alike."""
    headers = [(RUN_ID_HEADER, run.id)]
    if run.queued_ms is not None:
        headers.append(("x-openclaw-queued", str(run.queued_ms)))
    if run.is_replay:
        headers.append(REPLAYED)
    return headers


def origin_of(environ: Mapping[str, Any]) -> tuple[str | None, Mapping[str, str] | None]:
    """Return the request's id and its headers of W3C's Trace Context, `None` without any."""
    trace = None
    if "HTTP_TRACEPARENT" in environ:
        trace = {"traceparent": environ["HTTP_TRACEPARENT"], "tracestate": environ.get("HTTP_TRACESTATE", "")}
    return environ.get("openclaw.request_id"), trace


def name_run(entry: AccessEntry, run: Run) -> None:
    """Name the run in the access log, and its session unless that is the run's own."""
    entry.agent, entry.run = run.agent_id, run.id
    if not run.accepted.stateless:
        entry.session = run.session_key


class Caller:
    """The client of a request. If it hangs up inside the `with` block, its run is cancelled, or left (`Run.leave`).

    `environ` is the request's, with its headers, `connection` the client's socket, `principal` who it is, `entry` the
    request's part of the access log.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self._submission = CancelScope()
        self._run: Run | None = None
        self.connection = environ.get("openclaw.connection")
        self.offer: Offer | None = environ.get("openclaw.offer")
        self.principal: Principal = environ[PRINCIPAL_KEY]
        self.entry: AccessEntry = access_entry(environ)

    @property
    def work(self) -> CancelScope:
        """A block of work other than a run, which ends when the caller hangs up."""
        return self._submission

    def submit(self, gateway: Gateway, request: AgentRequest) -> Run:
        """Submit a run. Raises the errors of `Gateway.submit`."""
        try:
            with self._submission:
                self._run = run = gateway.submit(request, *origin_of(self.environ))
        except GatewayError as error:
            logger.info("request %s was refused: %s", self.environ.get("openclaw.request_id"), error.code)
            raise
        name_run(self.entry, run)
        if HOLD_KEY in self.environ:
            run.retain(self.environ[HOLD_KEY])
        return run

    def note_trace(self, trace_id: str | None) -> None:
        """Add the trace of what is done for the request to the access log."""
        self.entry.trace_id = trace_id

    def note_run(self, run: Run) -> None:
        """Add what is known of the run by now to the access log."""
        self.entry.trace_id = run.trace_id
        self.entry.replaced_tools = ",".join(run.replaced_tools) or None
        end = run.end
        if end is not None and end.error is not None:
            self.entry.error = end.error.code

    def _on_disconnect(self) -> None:
        self.entry.status = _CALLER_LEFT
        if self._run is None:
            self._submission.cancel()
        else:
            self._run.leave()

    def __enter__(self) -> Self:
        self._watch = watch_disconnect(self.connection, self._on_disconnect)
        self._watch.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._watch.__exit__(kind, error, trace)
        if self._run is not None:
            self.note_run(self._run)
            if isinstance(error, GatewayError) and error.status not in _WITHOUT_RUN:
                error.headers.update(delivery_headers(self._run))
        del self._watch  # it refers to this object, and a reference cycle would keep the request's body


class WatchedStream:
    """A stream's body: the run ends when the client hangs up or the server closes the body, read or not.

    The access log gets the code of the error that ends the stream.
    """

    def __init__(self, run: Run, pieces: Iterable[bytes], caller: Caller) -> None:
        self._run = run
        self._pieces = pieces
        self._caller = caller

    def __iter__(self) -> Iterator[bytes]:
        self._run.on_evicted.append(self._on_evicted)
        try:
            with watch_disconnect(self._caller.connection, self._run.leave):
                yield from self._pieces
        finally:
            self._run.on_evicted.remove(self._on_evicted)

    def _on_evicted(self) -> None:
        spawn(self._abandon_later)

    def _abandon_later(self) -> None:
        """Close the connection of a client that does not read how its run has ended."""
        sleep(_LAST_READ_SECONDS)
        if self._on_evicted in self._run.on_evicted and self._caller.connection is not None:
            with suppress(OSError):
                self._caller.connection.abandon()

    def close(self) -> None:
        """Leave the run, unless it has ended; called by the server before it writes the access log."""
        self._run.leave()
        self._caller.note_run(self._run)
