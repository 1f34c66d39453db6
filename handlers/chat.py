"""`POST /v1/chat/completions`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

import orjson
from flask import current_app

from service.agent.run import Run
from service.api.http.chat_request import parse_chat_request
from service.api.http.chat_response import ChunkStream, to_completion
from service.api.http.connexion_app import current_request, environ_key
from service.api.http.responses import NO_BUFFERING, REPLAYED, RUN_ID_HEADER, Response, ok_response
from service.core.byte_budget import HOLD_KEY
from service.core.concurrency import CancelScope, sleep, spawn
from service.core.errors import GatewayError
from service.core.hangup import watch_hangup
from service.core.logs import AccessEntry, access_entry
from service.gateway.gateway import Gateway
from service.storage.sessions.keys import encode_session_key

logger = logging.getLogger("openclaw.http")

_DEFAULT_MODEL = "openclaw"
_CALLER_LEFT = 499  # nginx's status for it
_LAST_READ_SECONDS = 0.25


def create_chat_completion(body: dict[str, Any]) -> Response:
    """Run an agent and answer with its reply, whole or as a stream."""
    with _Caller(current_request().environ) as caller:
        run = caller.submit(body)
        model = body.get("model") or _DEFAULT_MODEL
        if body.get("stream"):
            include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            chunks = ChunkStream(run, model, include_usage=include_usage, shows=caller.shows)
            chunks.begin()
            return ok_response(
                "text/event-stream", _WatchedChunks(run, chunks, caller), *_run_headers(run), NO_BUFFERING
            )
        result = run.wait()
        caller.note_end(run)
        completion = to_completion(run, result, model, shows=caller.shows, metadata=body.get("metadata"))
    return ok_response("application/json", orjson.dumps(completion), *_run_headers(run))


def _run_headers(run: Run) -> list[tuple[str, str]]:
    return [("x-openclaw-session-key", encode_session_key(run.session_key)), *_delivery_headers(run)]


def _delivery_headers(run: Run) -> list[tuple[str, str]]:
    """Build the headers of answers and errors alike."""
    headers = [(RUN_ID_HEADER, run.id)]
    if run.queued_ms is not None:
        headers.append(("x-openclaw-queued", str(run.queued_ms)))
    if run.is_replay:
        headers.append(REPLAYED)
    return headers


class _Caller:
    """The client of a request. If it hangs up inside the `with` block, its run is cancelled, or left (`Run.leave`).

    `connection` is its socket, `entry` the request's part of the access log, `shows` what it wants to see beside text.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self._submission = CancelScope()
        self._run: Run | None = None
        self.shows: frozenset[str] = frozenset()
        self.connection = environ.get("openclaw.connection")
        self.entry: AccessEntry = access_entry(environ)

    def submit(self, body: dict[str, Any]) -> Run:
        """Submit the run that the request asks for."""
        gateway: Gateway = current_app.extensions["gateway"]
        request = parse_chat_request(body, lambda header: self._environ.get(environ_key(header)), gateway.http)
        self.shows = request.shows
        try:
            with self._submission:
                self._run = run = gateway.submit(request)
        except GatewayError as error:
            logger.info("request %s was refused: %s", self._environ.get("openclaw.request_id"), error.code)
            raise
        self.entry.agent, self.entry.run = run.agent_id, run.id
        if HOLD_KEY in self._environ:
            run.retain(self._environ[HOLD_KEY])
        return run

    def note_end(self, run: Run) -> None:
        """Add the end of the run to the access log."""
        self.entry.replaced_tools = ",".join(run.replaced_tools) or None
        if run.end is not None and run.end.error is not None:
            self.entry.error = run.end.error.code

    def _on_hangup(self) -> None:
        self.entry.status = _CALLER_LEFT
        if self._run is None:
            self._submission.cancel()
        else:
            self._run.leave()

    def __enter__(self) -> Self:
        self._watch = watch_hangup(self.connection, self._on_hangup)
        self._watch.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._watch.__exit__(kind, error, trace)
        if self._run is not None and isinstance(error, GatewayError):
            error.headers.update(_delivery_headers(self._run))
        del self._watch  # it refers to this object, and a reference cycle would keep the request's body


class _WatchedChunks:
    """A stream's body: the run ends when the client hangs up or the server closes the body, read or not.

    The access log gets the code of the error that ends the stream.
    """

    def __init__(self, run: Run, chunks: ChunkStream, caller: _Caller) -> None:
        self._run = run
        self._chunks = chunks
        self._caller = caller

    def __iter__(self) -> Iterator[bytes]:
        self._run.on_evicted.append(self._on_evicted)
        try:
            with watch_hangup(self._caller.connection, self._run.leave):
                yield from self._chunks
        finally:
            self._run.on_evicted.remove(self._on_evicted)
        self._caller.note_end(self._run)

    def _on_evicted(self) -> None:
        spawn(self._abandon_later)

    def _abandon_later(self) -> None:
        """Close the connection of a client that does not read how its run has ended."""
        sleep(_LAST_READ_SECONDS)
        if self._on_evicted in self._run.on_evicted and self._caller.connection is not None:
            with suppress(OSError):
                self._caller.connection.abandon()

    def close(self) -> None:
        """Leave the run; called by the server. After the run's end a no-op."""
        self._run.leave()
