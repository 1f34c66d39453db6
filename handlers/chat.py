"""`POST /v1/chat/completions`."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from flask import Response, current_app, request

from service.completion_request import parse_turn
from service.completion_response import ChunkStream, to_completion
from service.concurrency import Cancelled, CancelScope, watch_hangup
from service.errors import GatewayError
from service.gateway import Gateway, Turn
from service.runs import Run
from service.sessions.keys import encode_session_key

_DEFAULT_MODEL = "openclaw"


def create_chat_completion(body: dict[str, Any]) -> Response:
    """Run an agent and answer with its reply, whole or as a stream."""
    gateway: Gateway = current_app.extensions["gateway"]
    connection = request.environ.get("openclaw.connection")
    run = _start(gateway, parse_turn(body, request.headers.get), connection)
    request.environ.get("openclaw.log", {}).update(agent=run.agent_id, run=run.id)
    headers = {"x-openclaw-session-key": encode_session_key(run.session_key), "Cache-Control": "no-store"}
    model = body.get("model", _DEFAULT_MODEL)
    if body.get("stream"):
        return _stream(run, model, body.get("stream_options") or {}, headers, connection)
    with watch_hangup(connection, run.leave):
        completion = to_completion(run, run.wait(), model, body.get("metadata"))
    return Response(orjson.dumps(completion), headers=headers, content_type="application/json")


def _start(gateway: Gateway, turn: Turn, connection: Any) -> Run:
    scope = CancelScope()
    try:
        with watch_hangup(connection, scope.cancel), scope:
            return gateway.start(turn)
    except Cancelled:
        raise GatewayError("run_aborted", "The caller hung up while its session was busy.") from None


def _stream(run: Run, model: str, options: Mapping[str, Any], headers: dict[str, str], connection: Any) -> Response:
    chunks = ChunkStream(run, model, include_usage=bool(options.get("include_usage")))
    headers["X-Accel-Buffering"] = "no"
    body = _WatchedChunks(run, chunks, connection)
    return Response(body, headers=headers, content_type="text/event-stream", direct_passthrough=True)


class _WatchedChunks:
    """A stream's body: when the caller leaves, or the server closes it, read or not, the run ends with it.

    The server calls this very `close`: with `direct_passthrough` Werkzeug ignores `call_on_close`.
    """

    def __init__(self, run: Run, chunks: ChunkStream, connection: Any) -> None:
        self._run = run
        self._chunks = chunks
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        with watch_hangup(self._connection, self._run.leave):
            yield from self._chunks

    def close(self) -> None:
        """The caller is gone; after the run's end a no-op."""
        self._run.leave()
