"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
from flask import current_app

from service.agent.run import Run
from service.api.http.caller import Caller, delivery_headers
from service.api.http.chat_request import parse_chat_request
from service.api.http.chat_response import ChunkStream, to_completion
from service.api.http.connexion_app import current_request
from service.api.http.responses import NO_BUFFERING, Response, ok_response
from service.core.concurrency import sleep, spawn
from service.core.hangup import watch_hangup
from service.gateway.gateway import Gateway
from service.storage.sessions.keys import encode_session_key

_DEFAULT_MODEL = "openclaw"
_LAST_READ_SECONDS = 0.25


def create_chat_completion(body: dict[str, Any]) -> Response:
    """Run an agent and answer with its reply, whole or as a stream."""
    gateway: Gateway = current_app.extensions["gateway"]
    with Caller(current_request().environ) as caller:
        request = parse_chat_request(body, caller.header, gateway.http)
        run = caller.submit(gateway, request)
        model = body.get("model") or _DEFAULT_MODEL
        if body.get("stream"):
            include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            chunks = ChunkStream(run, model, include_usage=include_usage, shows=request.shows)
            chunks.begin()
            return ok_response(
                "text/event-stream", _WatchedChunks(run, chunks, caller), *_run_headers(run), NO_BUFFERING
            )
        result = run.wait()
        caller.note_end(run)
        completion = to_completion(run, result, model, shows=request.shows, metadata=body.get("metadata"))
    return ok_response("application/json", orjson.dumps(completion), *_run_headers(run))


def _run_headers(run: Run) -> list[tuple[str, str]]:
    return [("x-openclaw-session-key", encode_session_key(run.session_key)), *delivery_headers(run)]


class _WatchedChunks:
    """A stream's body: the run ends when the client hangs up or the server closes the body, read or not.

    The access log gets the code of the error that ends the stream.
    """

    def __init__(self, run: Run, chunks: ChunkStream, caller: Caller) -> None:
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
