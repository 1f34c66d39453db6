"""Which agent and which session a request means, and the turn it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.agent.conversation import IncomingMessage
from service.agent.request import AgentRequest
from service.config.agents import Agent
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Role, text_message
from service.gateway.gateway import Gateway
from service.storage.sessions.keys import default_session_key, session_key_for

NAME = {"type": "string", "minLength": 1, "maxLength": 512, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}
NAME["x-expected"] = "a text without control characters"


@record
class Target:
    """The agent that answers and the whole key of the session."""

    agent: Agent
    session_key: str


def find_target(gateway: Gateway, params: Mapping[str, Any], key_name: str = "sessionKey") -> Target:
    """What `agentId`, the key at `key_name` and `sessionId` mean.

    A key that begins with `agent:<id>:` names its agent; `main` and no key at all mean the agent's main session; a
    `sessionId` is a session of its own. Raises `GatewayError`: an unknown agent, a reserved key, a contradiction.
    """
    key = str(params.get(key_name) or "").strip()
    agent = _find_agent(gateway, params.get("agentId"), key, key_name)
    derived = session_key_for(agent.id, default_session_key(key, params.get("sessionId")), None, str)
    return Target(agent, derived.key)


def _find_agent(gateway: Gateway, agent_id: str | None, key: str, key_name: str) -> Agent:
    by_id = {agent.id: agent for agent in gateway.roster.agents}
    words = key.lower().split(":", 2)
    named = words[1] if len(words) == 3 and words[0] == "agent" else None  # noqa: PLR2004 - agent:<id>:<rest>
    wanted = (agent_id or "").strip().lower() or named or gateway.roster.default.id
    if named is not None and named != wanted:
        text = f"`{key_name}` belongs to the agent {named[:64]}, `agentId` names {wanted[:64]}. Send one of the two."
        raise GatewayError("invalid_value", text, param=key_name)
    if wanted not in by_id:
        here = ", ".join(list(by_id)[:20])
        details = {"code": "UNKNOWN_AGENT_ID", "agentId": wanted[:64]}
        text = f'unknown agent id "{wanted[:64]}". Agents here: {here}.'
        raise GatewayError("model_not_found", text, param="agentId", details=details)
    return by_id[wanted]


def to_turn(target: Target, params: Mapping[str, Any], timeout_seconds: float | None) -> AgentRequest:
    """The turn that `message`, `model`, `provider`, `extraSystemPrompt` and `channel` ask for."""
    if not params["message"].strip():
        text = "There is nothing to answer. Send a `message` that says something."
        raise GatewayError("missing_required_parameter", text, param="message")
    model = params.get("model")
    if model and params.get("provider"):
        model = f"{params['provider']}/{model}"
    return AgentRequest(
        messages=(IncomingMessage("message", text_message(Role.USER, params["message"])),),
        system_text=params.get("extraSystemPrompt") or "",
        agent_id=target.agent.id,
        provider_model=model or None,
        session_key=target.session_key,
        channel=params.get("channel") or None,
        timeout_seconds=timeout_seconds or None,
    )
