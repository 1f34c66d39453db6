"""Methods that return information: agents, models, configuration, health, status."""

from __future__ import annotations

from typing import Any

from service import __version__
from service.api.websocket.agent_request import NAME
from service.api.websocket.client import READ
from service.api.websocket.dispatch import Call, Method
from service.config.roster import Agent, Roster
from service.core.errors import GatewayError
from service.core.principal import Scope
from service.storage.sessions.keys import MAIN_SESSION, shown_run_id


def list_agents(call: Call) -> Any:
    """Return the agents, the id of the default one and the session scope."""
    roster = _roster(call)
    return {
        "defaultId": roster.default.id,
        "mainKey": MAIN_SESSION,
        "scope": "per-sender",
        "agents": [_to_agent(agent) for agent in roster.agents],
    }


def _to_agent(agent: Agent) -> dict[str, Any]:
    row: dict[str, Any] = {"id": agent.id, "name": agent.name}
    if agent.workspace is not None:
        row["workspace"] = str(agent.workspace)
    if agent.model is not None:
        row["model"] = {"primary": agent.model, "fallbacks": list(agent.fallbacks)}
    return row


def list_models(call: Call) -> Any:
    """Return the models that the configuration names, each once."""
    listed = call.context.gateway.catalog.list_models(_roster(call).agents)
    return {"models": [_to_model(model) for model in listed if call.client.principal.may_use(model)]}


def _roster(call: Call) -> Roster:
    return call.context.gateway.roster.of(call.client.principal)


def _to_model(ref: str) -> dict[str, Any]:
    provider, _, model = ref.partition("/")
    return {"id": model, "name": model, "provider": provider}


def get_config(call: Call) -> Any:
    """Return the configuration in force with masked secrets."""
    call.client.principal.check_scope(Scope.ADMIN)
    return call.context.describe_config()


def get_health(call: Call) -> Any:
    """Return the health; raise an error that names the failing parts if runs cannot begin."""
    began = call.context.now_ms
    failing = call.context.gateway.failing()
    if failing:
        raise GatewayError("not_ready", f"The gateway is not ready: {', '.join(failing)}.")
    return {"ok": True, "ts": began, "durationMs": call.context.now_ms - began, "defaultAgentId": _default(call)}


def _default(call: Call) -> str:
    return _roster(call).default.id


def get_status(call: Call) -> Any:
    """Return the version, the uptime and the running runs."""
    context = call.context
    runs = [
        {
            "runId": shown_run_id(run.id, call.client.principal.owner),
            "sessionKey": run.session_key,
            "agentId": run.agent_id,
            "protocol": run.protocol,
        }
        for run in context.gateway.runs.running()
        if call.client.may_see(run.session_key)
    ]
    return {
        "version": __version__,
        "ts": context.now_ms,
        "uptimeMs": context.now_ms - int(context.gateway.started_at * 1000),
        "defaultAgentId": _default(call),
        "agents": [agent.id for agent in _roster(call).agents],
        "connections": len(context.hub),
        "runs": runs[:100],
        "runCount": len(runs),
    }


ROWS = (
    Method("agents.list", READ, list_agents),
    Method(
        "models.list",
        READ,
        list_models,
        {"agentId": NAME},
        ignored=("view", "refresh", "preparedOnly", "includeProviderCapabilities"),
    ),
    Method("config.get", READ, get_config),
    Method("health", READ, get_health, ignored=("probe", "includeSensitive")),
    Method("status", READ, get_status, ignored=("includeChannelSummary",)),
)
