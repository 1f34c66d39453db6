"""`/healthz` and `/readyz`: probes for operators."""

from service.api.http.connexion_app import current_gateway, current_request
from service.api.http.http_response import Response, json_response, ok_response
from service.core.errors import GatewayError
from service.core.logs import access_entry


def get_health() -> Response:
    """Report that the process is alive."""
    access_entry(current_request().environ).is_routine = True
    return ok_response("application/json", b'{"ok":true,"status":"live"}')


def get_readiness() -> Response:
    """Report readiness for traffic; a 503 names the failing checks."""
    access_entry(current_request().environ).is_routine = True
    gateway = current_gateway()
    failing = gateway.failing()
    if failing:
        raise GatewayError("not_ready", f"The gateway is not ready: {', '.join(failing)}.")
    servers = [{"name": name, "state": state} for name, state in gateway.mcp_servers.items()]
    return json_response({"ready": True, "failing": failing, "details": {"mcp_servers": servers}})


get_health_alias = get_v1_health_alias = get_health
get_readiness_alias = get_readiness
