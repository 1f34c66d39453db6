"""Translate parameters of methods to agent requests, agents and session keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from service.agent.conversation import IncomingMessage
from service.agent.request import AgentRequest
from service.config.roster import AGENT_HEADER, Agent
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Role, Sampling, text_message
from service.core.principal import Principal
from service.gateway.gateway import Gateway
from service.models.output_format import strict_format
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import Protocol
from service.storage.sessions.keys import SESSION_KEY_HEADER, default_session_key, own_run_id, session_key_for

NAME = {"type": "string", "minLength": 1, "maxLength": 512, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}
NAME["x-expected"] = "a string without control characters"
#: Refused if it is blank, as `str.isspace` says.
MESSAGE = {"type": "string", "minLength": 1}
MESSAGE["x-pattern"] = (
    "[^\\t-\\r\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]"
)
NO_ATTACHMENTS = {
    "type": "array",
    "maxItems": 0,
    "x-unsupported": "Attachments are not supported. Send images to the HTTP endpoint, in the message's content.",
}


def to_agent_request(params: Mapping[str, Any], timeout_seconds: float | None, principal: Principal) -> AgentRequest:
    """Translate `principal`'s parameters of `agent` and `chat.send`; the idempotency key becomes the run's id.

    The same key with another message, model or session is refused. Raises `GatewayError` for a blank message and for a
    session key of another agent than `agentId`.
    """
    if not params["message"].strip():
        text = "The `message` is blank. Send text."
        raise GatewayError("missing_required_parameter", text, param="message")
    model = params.get("model")
    if model and params.get("provider"):
        model = f"{params['provider']}/{model}"
    run_id, system_text, channel = params["idempotencyKey"], params.get("extraSystemPrompt"), params.get("channel")
    schema = params.get("jsonSchema")
    asked = [params["message"], model or None, system_text or "", channel or None, *([schema] if schema else [])]
    return AgentRequest(
        principal=principal,
        messages=(IncomingMessage("message", text_message(Role.USER, params["message"])),),
        system_text=system_text or "",
        agent_id=_agent_id(params, "sessionKey"),
        provider_model=model or None,
        session_key=default_session_key(params.get("sessionKey"), params.get("sessionId")),
        channel=channel or None,
        sampling=Sampling(response_format=None if schema is None else strict_format(schema)),
        timeout_seconds=timeout_seconds or None,
        # Keys of other protocols have no control characters, so the two never collide.
        idempotency_key=IdempotencyKey.of(f"rpc\0{run_id}", _dump(asked)),
        run_id=run_id,
        protocol=Protocol.WEBSOCKET,
    )


def _dump(asked: list[Any]) -> bytes:
    try:
        return orjson.dumps(asked)
    except orjson.JSONEncodeError:
        raise GatewayError("invalid_value", "The `jsonSchema` is nested too deeply.", param="jsonSchema") from None


@record
class Target:
    """An agent and a full session key."""

    agent: Agent
    session_key: str


def find_target(
    gateway: Gateway, params: Mapping[str, Any], principal: Principal, key_name: str = "sessionKey"
) -> Target:
    """Resolve, for `principal`, `agentId`, the session key at `key_name` and `sessionId` to an agent and a session.

    A key that begins with `agent:<id>:` names its agent; `main` and no key at all mean the agent's main session; a
    `sessionId` has a session of its own. Raises `GatewayError`: an unknown agent, a reserved key, a contradiction.
    """
    agent = gateway.roster.of(principal).resolve(None, _agent_id(params, key_name))
    key = default_session_key(params.get(key_name), params.get("sessionId"))
    return Target(agent, session_key_for(agent.id, key, None, str, principal.owner).key)


def resolve_run_id(gateway: Gateway, run_id: str, principal: Principal) -> str:
    """Return the id of the run that `principal` calls `run_id`.

    Raises `StoreError`, and `GatewayError` (`run_not_found`) for one of somebody else.
    """
    if principal.owner is None:
        return run_id
    try:
        return gateway.get_run(own_run_id(run_id, principal.owner), principal).id
    except GatewayError as error:
        if error.code != "run_not_found":
            raise
    return gateway.get_run(run_id, principal).id


def _agent_id(params: Mapping[str, Any], key_name: str) -> str | None:
    parts = str(params.get(key_name) or "").strip().lower().split(":", 2)
    named = parts[1] if len(parts) == 3 and parts[0] == "agent" else None  # noqa: PLR2004 - agent:<id>:<rest>
    wanted = (params.get("agentId") or "").strip().lower()
    if named is not None and wanted and named != wanted:
        text = f"`{key_name}` belongs to the agent {named[:64]}, `agentId` names {wanted[:64]}. Send one of the two."
        raise GatewayError("invalid_value", text, param=key_name)
    return wanted or named


def in_protocol_terms(error: GatewayError, params: Mapping[str, Any]) -> GatewayError:
    """Return `error` with the parameter names of this protocol."""
    if error.code == "idempotency_key_reused":
        text = "This idempotencyKey belongs to another request. Send a new key with a new request."
        return GatewayError("invalid_value", text, param="idempotencyKey")
    key_name = "key" if "key" in params else "sessionKey"
    if error.code == "model_not_found" and error.param == AGENT_HEADER:
        wanted = (_agent_id(params, key_name) or "")[:64]
        text = f'unknown agent id "{wanted}". agents.list names the agents of this gateway.'
        details = {"code": "UNKNOWN_AGENT_ID", "agentId": wanted}
        return GatewayError("model_not_found", text, param="agentId", details=details)
    error.param = {SESSION_KEY_HEADER: key_name, "x-openclaw-model": "model"}.get(error.param or "", error.param)
    return error
