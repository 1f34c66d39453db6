"""`/v1/models`: the agents, listed as models."""

from typing import Any

from service.api.http.connexion_app import current_gateway, current_principal
from service.api.http.http_response import Response, json_response
from service.core.principal import Principal
from service.gateway.gateway import Gateway


def list_models() -> Response:
    """List the names that the caller's `model` may have."""
    gateway = current_gateway()
    principal = current_principal()
    roster = gateway.roster.of(principal)
    usable = [name for name in roster.model_ids() if gateway.catalog.refs_of(roster.resolve(name, None), principal)]
    return json_response({"object": "list", "data": [_to_model(gateway, name, principal) for name in usable]})


def get_model(model: str) -> Response:
    """Return one name, which may be an alias; 404 if no agent has it."""
    return json_response(_to_model(current_gateway(), model, current_principal()))


def _to_model(gateway: Gateway, name: str, principal: Principal) -> dict[str, Any]:
    agent = gateway.roster.of(principal).resolve(name, None)
    return {
        "id": name,
        "object": "model",
        "created": int(gateway.started_at),
        "owned_by": "openclaw",
        "description": f"Agent {agent.id}, model {gateway.catalog.describe(agent, principal)}.",
    }
