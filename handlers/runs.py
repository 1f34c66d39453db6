"""`/v1/runs`: the runs of all agents, and their cancellation."""

from flask import current_app

from service.api.http.responses import Response, json_response
from service.api.http.run_response import parse_run_cursor, parse_run_state, to_run, to_run_list
from service.core.errors import GatewayError
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
    gateway: Gateway = current_app.extensions["gateway"]
    if session_key is not None:
        session_key = resolve_stored_key(session_key, gateway.roster.default.id, gateway.has_session)
        if session_key is None:
            return json_response(to_run_list((), limit))
    which = RunFilter(
        agent_id=None if agent is None else agent.lower(),
        session_key=session_key,
        state=None if state is None else parse_run_state(state),
    )
    found = gateway.list_runs(which, None if after is None else parse_run_cursor(after), limit + 1)
    return json_response(to_run_list(found, limit))


def get_run(run_id: str) -> Response:
    """Return one run."""
    gateway: Gateway = current_app.extensions["gateway"]
    return json_response(to_run(gateway.get_run(run_id)))


def cancel_run(run_id: str) -> Response:
    """Cancel a queued or running run."""
    gateway: Gateway = current_app.extensions["gateway"]
    run = gateway.get_run(run_id)
    if not gateway.abort(run_id):
        ended = gateway.get_run(run_id)
        raise GatewayError("run_ended", f'The run has ended already (state "{ended.state}") and was not changed.')
    return json_response(to_run(run))
