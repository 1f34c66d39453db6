"""Methods that return information: agents, models, configuration, health, status."""

from __future__ import annotations

from typing import Any

from service import __version__
from service.api.websocket.agent_request import NAME
from service.api.websocket.client import READ
from service.api.websocket.dispatch import Call, Method
from service.config.agents import Agent
from service.core.errors import GatewayError
from service.storage.sessions.keys import MAIN_SESSION


def list_agents(call: Call) -> Any:
    """Every agent, the default one's id and how sessions are kept."""
    roster = call.desk.gateway.roster
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
    """Every model that is named in the configuration, once."""
    return {"models": [_to_model(model) for model in call.desk.gateway.catalog.list_models(_agents(call))]}


def _agents(call: Call) -> tuple[Agent, ...]:
    return call.desk.gateway.roster.agents


def _to_model(ref: str) -> dict[str, Any]:
    provider, _, model = ref.partition("/")
    return {"id": model, "name": model, "provider": provider}


def get_config(call: Call) -> Any:
    """The configuration in force, its secrets masked."""
    return call.desk.describe_config()


def get_health(call: Call) -> Any:
    """Return the health; raise an error that names the failing parts if runs cannot begin."""
    began = call.desk.now_ms
    failing = call.desk.gateway.failing()
    if failing:
        raise GatewayError("not_ready", f"The gateway is not ready: {', '.join(failing)}.")
    return {"ok": True, "ts": began, "durationMs": call.desk.now_ms - began, "defaultAgentId": _default(call)}


def _default(call: Call) -> str:
    return call.desk.gateway.roster.default.id


def get_status(call: Call) -> Any:
    """Return the version, the uptime and the running runs."""
    desk = call.desk
    runs = [
        {"runId": run.id, "sessionKey": run.session_key, "agentId": run.agent_id, "door": run.door}
        for run in desk.gateway.runs.running()
    ]
    return {
        "version": __version__,
        "ts": desk.now_ms,
        "uptimeMs": desk.now_ms - int(desk.gateway.started_at * 1000),
        "defaultAgentId": _default(call),
        "agents": [agent.id for agent in desk.gateway.roster.agents],
        "connections": len(desk.hub),
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
