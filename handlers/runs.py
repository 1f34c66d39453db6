"""`/v1/runs`: what became of a request, and how to end one."""

from flask import current_app

from service.api.http.responses import Response, json_reply
from service.api.http.session_response import to_run
from service.core.errors import GatewayError
from service.gateway.gateway import Gateway


def get_run(run_id: str) -> Response:
    """What is known of one run."""
    gateway: Gateway = current_app.extensions["gateway"]
    return json_reply(to_run(gateway.get_run(run_id)))


def cancel_run(run_id: str) -> Response:
    """End a run soon, wherever it waits or goes on."""
    gateway: Gateway = current_app.extensions["gateway"]
    run = gateway.get_run(run_id)
    if not gateway.abort(run_id):
        ended = gateway.get_run(run_id)
        raise GatewayError("run_ended", f'The run has ended already: its state is "{ended.state}". Nothing is changed.')
    return json_reply(to_run(run))
