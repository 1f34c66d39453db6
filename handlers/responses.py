"""`/v1/responses`: OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from service.agent.output_events import settled_events
from service.agent.request import AgentRequest
from service.api.http.caller import Caller, WatchedStream, run_headers
from service.api.http.chat_request import asks_to_go_on, includes_cost
from service.api.http.connexion_app import current_gateway, current_principal, current_request
from service.api.http.file_parts import with_file_texts
from service.api.http.http_response import NO_BUFFERING, Response, json_response, ok_response
from service.api.http.openai_responses.echo import to_echo
from service.api.http.openai_responses.input_items import to_input_items, to_item_list
from service.api.http.openai_responses.output import ResponseFold
from service.api.http.openai_responses.request import in_response_terms, parse_response_request
from service.api.http.openai_responses.stored import (
    StoredEvents,
    find_item,
    find_response,
    get_record,
    load_input,
    to_stored_response,
    wait_for_end,
)
from service.api.http.openai_responses.stream import ResponseStream, StoredResponseStream
from service.api.http.run_events import QUIET_SECONDS
from service.core.errors import GatewayError
from service.core.logs import access_entry
from service.gateway.gateway import Gateway
from service.storage.runs.responses import DeleteResponse
from service.storage.sessions.keys import is_unnamed

_CANCEL_SECONDS = 5.0


def create_response(body: dict[str, Any]) -> Response:
    """Run an agent and answer with a response, whole or as a stream."""
    gateway = current_gateway()
    with Caller(current_request().environ) as caller:
        try:
            request = parse_response_request(
                body,
                caller.environ,
                gateway.http,
                caller.principal,
                find_previous=lambda response_id: find_response(gateway, response_id, caller.principal),
                find_item=lambda item_id: find_item(gateway, item_id, caller.principal),
                read_files=lambda messages: _read_files(gateway, caller, messages),
            )
            return _answer(gateway, caller, request, body)
        except GatewayError as error:
            raise in_response_terms(error, body) from None


def _read_files(gateway: Gateway, caller: Caller, messages: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    with caller.work:
        return with_file_texts(messages, "messages", gateway.lease().runtime.files)


def _answer(gateway: Gateway, caller: Caller, request: AgentRequest, body: dict[str, Any]) -> Response:
    run = caller.submit(gateway, request)
    stored = run.accepted.response  # of a repeated request what the first one got
    echo = to_echo(body, run.agent_id, run.sampling) if stored is None else orjson.loads(stored)
    fold = ResponseFold(run.id, run.accepted_at, echo, include_cost=includes_cost(body))
    if body.get("stream"):
        stream = ResponseStream(run, fold, request.shows, offer=caller.offer)
        if not body.get("background") and not asks_to_go_on(caller.environ):
            stream.begin()
        return ok_response("text/event-stream", WatchedStream(run, stream, caller), *run_headers(run), NO_BUFFERING)
    if body.get("background"):
        headers = run_headers(run)
        if run.is_replay:
            run.leave()  # nobody reads the copy
        response = to_stored_response(gateway.storage, gateway.get_run(run.id, caller.principal))
        return ok_response("application/json", orjson.dumps(response), *headers)
    run.wait()
    response = fold.add_all(settled_events(run.log), run.ended_at)
    return ok_response("application/json", orjson.dumps(response), *run_headers(run))


def get_response(response_id: str, stream: bool = False, starting_after: int = -1) -> Response:
    """Return a stored response, or stream its events after a number, then those to come."""
    gateway = current_gateway()
    record = get_record(gateway, response_id, current_principal())
    if not stream:
        return json_response(to_stored_response(gateway.storage, record))
    environ = current_request().environ
    access_entry(environ).run = record.id
    if not record.detached:
        text = "Only the events of responses in the background are kept. Send `background` with the request."
        raise GatewayError("run_events_gone", text, param="response_id")
    watch = gateway.event_feeds.watch(record.id, 0, QUIET_SECONDS)
    if environ["REQUEST_METHOD"] == "HEAD":
        watch.close()
        return ok_response("text/event-stream", b"", NO_BUFFERING)
    events = StoredEvents(gateway, record, starting_after)
    body = StoredResponseStream(watch, events, environ.get("openclaw.connection"))
    return ok_response("text/event-stream", body, NO_BUFFERING)


def cancel_response(response_id: str) -> Response:
    """Cancel a response, and return it; one that has ended is not changed."""
    gateway = current_gateway()
    record = get_record(gateway, response_id, current_principal())
    if not record.state.is_final and gateway.abort(record.id):
        wait_for_end(gateway, record.id, _CANCEL_SECONDS)
        record = find_response(gateway, response_id, current_principal()) or record
    return json_response(to_stored_response(gateway.storage, record))


def delete_response(response_id: str) -> Response:
    """Delete a stored response."""
    gateway = current_gateway()
    record = get_record(gateway, response_id, current_principal())
    if not record.state.is_final:
        text = "The response is in progress. Cancel it first, with POST /v1/responses/{response_id}/cancel."
        raise GatewayError("session_busy", text, param="response_id")
    unnamed = record.session_key if is_unnamed(record.session_key, record.agent_id) else None
    gateway.storage.database.write(DeleteResponse(record.id, unnamed))
    return json_response({"id": response_id, "object": "response", "deleted": True})


def list_input_items(response_id: str, limit: int, order: str, after: str | None = None) -> Response:
    """List the input of a stored response."""
    gateway = current_gateway()
    record = get_record(gateway, response_id, current_principal())
    items = to_input_items(
        record.id, load_input(gateway.storage, record), orjson.loads(record.response or "{}")["tools"]
    )
    return json_response(to_item_list(items, limit=limit, order=order, after=after))
