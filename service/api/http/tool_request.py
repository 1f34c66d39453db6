"""Translate a call of a tool, validated against the contract, to an `AgentRequest`, and tools to the contract's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.agent.request import AgentRequest
from service.api.http.caller import Caller
from service.config.roster import Agent
from service.core.errors import GatewayError
from service.core.ids import new_call_id
from service.core.messages import ToolCall
from service.gateway.tool_invocation import ListedTool
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import Protocol
from service.tools.policy import ApprovalPolicy

_APPROVALS = {
    ApprovalPolicy.NONE: "none",
    ApprovalPolicy.ASK: "ask",
    ApprovalPolicy.ASK_ALWAYS: "ask-always",
    ApprovalPolicy.DENIED: "none",
}
_AGENT_KEY_STEPS = 3  # agent:<id>:<rest>


def parse_invocation(body: Mapping[str, Any], caller: Caller) -> AgentRequest:
    """Translate a call; `body` satisfies the contract's `ToolInvocationRequest`.

    Raises `GatewayError` (400) for a call without a tool, or with two.
    """
    name, other = body.get("tool") or body.get("name"), body.get("name") or body.get("tool")
    if name is None:
        raise GatewayError("missing_required_parameter", "`tool` is missing. Name the tool to call.", param="tool")
    if name != other:
        raise GatewayError("invalid_value", "`tool` and `name` name two tools. Send one of the two.", param="name")
    try:
        arguments = orjson.dumps(body.get("args") or {}).decode()
    except orjson.JSONEncodeError:
        raise GatewayError("invalid_value", "`args` is nested too deeply.", param="args") from None
    session_key = (body.get("sessionKey") or "").strip() or None
    agent_id = caller.environ.get("HTTP_X_OPENCLAW_AGENT_ID") or body.get("agentId") or _agent_in(session_key)
    idempotency_key = caller.environ.get("HTTP_IDEMPOTENCY_KEY")
    asked = orjson.dumps(["tool", agent_id, session_key, name, arguments])
    return AgentRequest(
        principal=caller.principal,
        protocol=Protocol.HTTP,
        messages=(),
        agent_id=agent_id,
        session_key=session_key,
        call=ToolCall(new_call_id(), name, arguments),
        idempotency_key=IdempotencyKey.of(idempotency_key, asked) if idempotency_key else None,
        streamed=False,
    )


def _agent_in(session_key: str | None) -> str | None:
    """Return the agent that a session key names."""
    steps = (session_key or "").lower().split(":", _AGENT_KEY_STEPS - 1)
    return steps[1] if len(steps) == _AGENT_KEY_STEPS and steps[0] == "agent" and steps[1] else None


def in_invocation_terms(error: GatewayError) -> GatewayError:
    """Return `error` with the parameter names of this request."""
    names = {"x-openclaw-session-key": "sessionKey"}
    error.param = names.get(error.param or "", error.param)
    if error.param == "sessionKey":
        error.message = error.message.replace("`model`", "`agentId`")
    return error


def to_tool_list(agent: Agent, tools: Sequence[ListedTool]) -> dict[str, Any]:
    """Translate the tools of an agent to the contract's `AgentToolList`."""
    return {"object": "list", "agent": agent.id, "data": [_to_tool(one) for one in tools]}


def _to_tool(tool: ListedTool) -> dict[str, Any]:
    return {
        "object": "tool",
        "name": tool.function.name,
        "description": tool.function.description or "",
        "parameters": dict(tool.function.parameters or {}),
        "approval": _APPROVALS[tool.approval],
    }
