"""`/v1/models`: the agents, listed as models."""

from typing import Any

from flask import current_app

from service.api.http.responses import Response, json_response
from service.gateway.gateway import Gateway


def list_models() -> Response:
    """List the names that a request's `model` may have, without aliases."""
    gateway: Gateway = current_app.extensions["gateway"]
    return json_response({"object": "list", "data": [_to_model(gateway, name) for name in gateway.roster.model_ids()]})


def get_model(model: str) -> Response:
    """Return one name, which may be an alias; 404 if no agent has it."""
    return json_response(_to_model(current_app.extensions["gateway"], model))


def _to_model(gateway: Gateway, name: str) -> dict[str, Any]:
    agent = gateway.roster.resolve(name, None)
    return {
        "id": name,
        "object": "model",
        "created": int(gateway.started_at),
        "owned_by": "openclaw",
        "description": f"Agent {agent.id}, model {gateway.catalog.describe(agent)}.",
    }
