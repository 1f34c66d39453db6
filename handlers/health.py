"""`/healthz` and `/readyz`: for whoever runs the gateway."""

from flask import current_app

from service.api.http.responses import Response, json_reply, ok_reply
from service.core.errors import GatewayError
from service.gateway.gateway import Gateway


def get_health() -> Response:
    """The process is alive, or this would not run."""
    return ok_reply("application/json", b'{"ok":true,"status":"live"}')


def get_readiness() -> Response:
    """Whether traffic should come here; 503 names what is in the way."""
    gateway: Gateway = current_app.extensions["gateway"]
    failing = gateway.failing()
    if failing:
        raise GatewayError("not_ready", f"The gateway is not ready: {', '.join(failing)}.")
    return json_reply({"ready": True, "failing": failing})
