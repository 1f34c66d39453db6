"""`POST /v1/chat/completions`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from flask import current_app

from service.agent.request import AgentRequest
from service.agent.run import Run
from service.api.http.chat_request import parse_turn
from service.api.http.chat_response import ChunkStream, to_completion
from service.api.http.connexion_app import current_request, environ_key
from service.api.http.responses import Response, ok_response
from service.core.concurrency import Cancelled, CancelScope, watch_hangup
from service.core.errors import GatewayError
from service.gateway.gateway import Gateway
from service.storage.sessions.keys import encode_session_key

logger = logging.getLogger("openclaw.http")

_DEFAULT_MODEL = "openclaw"
_CALLER_LEFT = 499  # nginx's word for it
_NO_BUFFERING = ("X-Accel-Buffering", "no")


def create_chat_completion(body: dict[str, Any]) -> Response:
    """Run an agent and answer with its reply, whole or as a stream."""
    gateway: Gateway = current_app.extensions["gateway"]
    environ = current_request().environ
    connection = environ.get("openclaw.connection")
    turn = parse_turn(body, lambda header: environ.get(environ_key(header)))
    noted = environ.get("openclaw.log", {})
    run = _start(gateway, turn, connection, noted)
    noted.update(agent=run.agent_id, run=run.id)
    session_key = ("x-openclaw-session-key", encode_session_key(run.session_key))
    model = body.get("model", _DEFAULT_MODEL)
    if body.get("stream"):
        chunks = ChunkStream(run, model, include_usage=bool((body.get("stream_options") or {}).get("include_usage")))
        with watch_hangup(connection, _leaving(run.leave, noted)):
            chunks.begin()
        pieces = _WatchedChunks(run, chunks, connection, noted)
        return ok_response("text/event-stream", pieces, session_key, _NO_BUFFERING)
    with watch_hangup(connection, _leaving(run.leave, noted)):
        completion = to_completion(run, run.wait(), model, body.get("metadata"))
    return ok_response("application/json", orjson.dumps(completion), session_key)


def _start(gateway: Gateway, turn: AgentRequest, connection: Any, noted: dict[str, Any]) -> Run:
    scope = CancelScope()
    try:
        with watch_hangup(connection, _leaving(scope.cancel, noted)), scope:
            return gateway.start(turn)
    except GatewayError as error:
        logger.info("request %s was refused: %s", current_request().environ.get("openclaw.request_id"), error.code)
        raise
    except Cancelled:
        raise GatewayError("run_aborted", "The caller hung up while its session was busy.") from None


def _leaving(leave: Callable[[], None], noted: dict[str, Any]) -> Callable[[], None]:
    """`leave`, noting for the log that whatever is answered now has no reader."""

    def note_and_leave() -> None:
        noted["status"] = _CALLER_LEFT
        leave()

    return note_and_leave


class _WatchedChunks:
    """A stream's body: when the caller leaves, or the server closes it, read or not, the run ends with it.

    The server calls this very `close`. `noted` gets the code of the error that ends the stream.
    """

    def __init__(self, run: Run, chunks: ChunkStream, connection: Any, noted: dict[str, Any]) -> None:
        self._noted = noted
        self._run = run
        self._chunks = chunks
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        with watch_hangup(self._connection, self._run.leave):
            yield from self._chunks
        if self._run.end is not None and self._run.end.error is not None:
            self._noted["error"] = self._run.end.error.code

    def close(self) -> None:
        """The caller is gone; after the run's end a no-op."""
        self._run.leave()
