"""`/v1/models`: the agents, as an OpenAI client lists models."""

from typing import Any

from flask import current_app

from service.api.http.responses import Response, json_reply
from service.gateway.gateway import Gateway


def list_models() -> Response:
    """Every name a request's `model` may carry, short of the aliases."""
    gateway: Gateway = current_app.extensions["gateway"]
    return json_reply({"object": "list", "data": [_to_model(gateway, name) for name in gateway.roster.model_ids()]})


def get_model(model: str) -> Response:
    """One name, aliases included; 404 for a name that no agent has."""
    return json_reply(_to_model(current_app.extensions["gateway"], model))


def _to_model(gateway: Gateway, name: str) -> dict[str, Any]:
    agent = gateway.roster.resolve(name, None)
    return {
        "id": name,
        "object": "model",
        "created": int(gateway.started_at),
        "owned_by": "openclaw",
        "description": f"The agent {agent.id}, answered by {gateway.catalog.describe(agent)}.",
    }
