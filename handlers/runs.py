"""`/v1/runs`: what became of a request, and how to end one."""

import orjson
from flask import Response, current_app

from service.errors import GatewayError
from service.gateway import Gateway
from service.http.session_response import to_run
from service.sessions.records import RunRecord


def get_run(run_id: str) -> Response:
    """What is known of one run."""
    gateway: Gateway = current_app.extensions["gateway"]
    return _json(gateway.get_run(run_id))


def cancel_run(run_id: str) -> Response:
    """End a run soon, wherever it waits or goes on."""
    gateway: Gateway = current_app.extensions["gateway"]
    run = gateway.get_run(run_id)
    if not gateway.abort(run_id):
        ended = gateway.get_run(run_id)
        raise GatewayError("run_ended", f'The run has ended already: its state is "{ended.state}". Nothing is changed.')
    return _json(run)


def _json(run: RunRecord) -> Response:
    return Response(orjson.dumps(to_run(run)), headers={"Cache-Control": "no-store"}, content_type="application/json")
