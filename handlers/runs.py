"""`/v1/runs`: the state of runs, and their cancellation."""

from flask import current_app

from service.api.http.responses import Response, json_response
from service.api.http.session_response import to_run
from service.core.errors import GatewayError
from service.gateway.gateway import Gateway


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
