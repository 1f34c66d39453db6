"""`/healthz` and `/readyz`: for whoever runs the gateway."""

import orjson
from flask import Response, current_app

from service.errors import GatewayError
from service.gateway import Gateway

_HEADERS = {"Cache-Control": "no-store"}


def get_health() -> Response:
    """The process is alive, or this would not run."""
    return Response(b'{"ok":true,"status":"live"}', headers=_HEADERS, content_type="application/json")


def get_readiness() -> Response:
    """Whether traffic should come here; 503 names what is in the way."""
    gateway: Gateway = current_app.extensions["gateway"]
    failing = gateway.failing()
    if failing:
        raise GatewayError("not_ready", f"The gateway is not ready: {', '.join(failing)}.")
    ready = {"ready": True, "failing": failing}
    return Response(orjson.dumps(ready), headers=_HEADERS, content_type="application/json")
