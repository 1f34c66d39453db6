"""`/v1/runs`: the runs of all agents, and their cancellation."""

from typing import Any

from service.api.http.caller import name_run, origin_of
from service.api.http.chat_chunks import ChunkEncoder
from service.api.http.chat_request import parse_shown
from service.api.http.chat_resume import ResumedChunks
from service.api.http.connexion_app import current_gateway, current_principal, current_request
from service.api.http.file_parts import with_file_texts
from service.api.http.http_response import (
    NO_BUFFERING,
    REPLAYED,
    RUN_ID_HEADER,
    Response,
    accepted_response,
    json_response,
    no_content_response,
    ok_response,
)
from service.api.http.run_events import QUIET_SECONDS, RunEventStream
from service.api.http.run_request import in_run_terms, parse_run_request
from service.api.http.run_response import parse_run_cursor, parse_run_state, to_run, to_run_list
from service.api.http.webhook_request import check_webhook
from service.core.byte_budget import HOLD_KEY
from service.core.errors import GatewayError
from service.core.logs import access_entry
from service.gateway.event_feeds import Watch
from service.gateway.gateway import Gateway
from service.storage.runs.pages import RunFilter
from service.storage.sessions.keys import resolve_stored_key


def list_runs(
    limit: int,
    agent: str | None = None,
    session_key: str | None = None,
    state: str | None = None,
    after: str | None = None,
) -> Response:
    """List a page of runs, newest first."""
    gateway = current_gateway()
    principal = current_principal()
    if session_key is not None:
        default_id = gateway.roster.of(principal).default.id
        session_key = resolve_stored_key(session_key, default_id, gateway.has_session, principal.owner)
        if session_key is None:
            return json_response(to_run_list((), limit))
    which = RunFilter(
        agent_id=None if agent is None else agent.lower(),
        session_key=session_key,
        state=None if state is None else parse_run_state(state),
        owner=principal.owner,
    )
    found = gateway.list_runs(which, None if after is None else parse_run_cursor(after), limit + 1)
    return json_response(to_run_list(found, limit))


def create_run(body: dict[str, Any]) -> Response:
    """Start a run that is not bound to its request."""
    gateway = current_gateway()
    environ = current_request().environ
    if isinstance(body["input"], list):
        body = {**body, "input": with_file_texts(body["input"], "input", gateway.lease().runtime.files)}
    try:
        request = parse_run_request(body, environ.get("HTTP_IDEMPOTENCY_KEY"), current_principal())
        if request.webhook is not None:
            check_webhook(request.webhook, gateway.webhooks.client)
        run = gateway.submit(request, *origin_of(environ))
    except GatewayError as error:
        raise in_run_terms(error) from None
    entry = access_entry(environ)
    name_run(entry, run)
    headers = [(RUN_ID_HEADER, run.id)]
    if run.is_replay:
        run.leave()  # nobody reads the copy
        headers.append(REPLAYED)
    else:
        run.retain(environ[HOLD_KEY])
    found = gateway.get_run(run.id, request.principal)
    return accepted_response(to_run(found), f"/v1/runs/{run.id}", *headers)


def get_run(run_id: str) -> Response:
    """Return one run."""
    gateway = current_gateway()
    return json_response(to_run(gateway.get_run(run_id, current_principal(), with_progress=True)))


def cancel_run(run_id: str) -> Response:
    """Cancel a queued or running run."""
    gateway = current_gateway()
    run = gateway.get_run(run_id, current_principal())
    if not gateway.abort(run_id):
        ended = gateway.get_run(run_id, current_principal())
        raise GatewayError("run_ended", f'The run has ended already (state "{ended.state}") and was not changed.')
    return json_response(to_run(run))


def list_run_events(run_id: str, after: int = 0) -> Response:
    """Stream the events of a run after a number, then those to come."""
    gateway = current_gateway()
    environ = current_request().environ
    seen = environ.get("HTTP_LAST_EVENT_ID")
    watch = _watch(gateway, run_id, int(seen) if seen else after)
    access_entry(environ).run = run_id
    if watch.is_over or environ["REQUEST_METHOD"] == "HEAD":
        is_over = watch.is_over
        watch.close()
        return no_content_response() if is_over else ok_response("text/event-stream", b"", NO_BUFFERING)
    return ok_response("text/event-stream", RunEventStream(watch, environ.get("openclaw.connection")), NO_BUFFERING)


def get_chat_stream(run_id: str, after: int = 0, *, include_usage: bool = False) -> Response:
    """Stream a run as a chat completion, from behind a number on."""
    gateway = current_gateway()
    environ = current_request().environ
    watch = _watch(gateway, run_id, 0)
    try:
        run = gateway.get_run(run_id, current_principal())
    except BaseException:
        watch.close()
        raise
    access_entry(environ).run = run_id
    if environ["REQUEST_METHOD"] == "HEAD":
        watch.close()
        return ok_response("text/event-stream", b"", NO_BUFFERING)
    model = f"openclaw/{run.agent_id}"
    encoder = ChunkEncoder(run_id, run.accepted_at_ms / 1000, model, include_usage=include_usage)
    shows = parse_shown(environ, gateway.http)
    chunks = ResumedChunks(watch, encoder, after, shows, environ.get("openclaw.connection"))
    return ok_response("text/event-stream", chunks, NO_BUFFERING)


def _watch(gateway: Gateway, run_id: str, after: int) -> Watch:
    if (principal := current_principal()).owner is not None:
        gateway.get_run(run_id, principal)  # administrators get `run_events_gone` for events that are gone
    return gateway.event_feeds.watch(run_id, after, QUIET_SECONDS)
