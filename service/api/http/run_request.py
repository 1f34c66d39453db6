"""Translate the request for a detached run, validated against the contract, to an `AgentRequest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.agent.conversation import select_new
from service.agent.request import AgentRequest
from service.api.http.chat_request import parse_messages, parse_system_text
from service.api.http.webhook_request import parse_webhook
from service.core.errors import GatewayError
from service.core.principal import Principal
from service.storage.runs.idempotency import IdempotencyKey
from service.storage.runs.records import Protocol
from service.storage.sessions.keys import SESSION_KEY_HEADER

#: The fields of a run in place of the headers of a chat completion.
_FIELDS = {SESSION_KEY_HEADER: "session_key", "x-openclaw-agent-id": "agent", "x-openclaw-model": "model"}


def parse_run_request(body: Mapping[str, Any], idempotency_key: str | None, principal: Principal) -> AgentRequest:
    """Translate a request of `principal`; `body` satisfies the contract's `RunRequest`.

    Raises `GatewayError` (400) for an input that leaves nothing to answer.
    """
    given = body["input"]
    messages: Sequence[dict[str, Any]] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    system_text = "\n\n".join(filter(None, (body.get("instructions"), parse_system_text(messages))))
    incoming = parse_messages(messages, "input")
    session_key = (body.get("session_key") or "").strip(" ") or None
    if session_key is None:
        select_new((), incoming, has_instructions=bool(system_text))  # the run could only fail
    metadata = body.get("metadata")
    key = None
    if idempotency_key:
        fields = {name: value for name, value in body.items() if value is not None}
        key = IdempotencyKey.of(idempotency_key, orjson.dumps(["run", fields], option=orjson.OPT_SORT_KEYS))
    return AgentRequest(
        principal=principal,
        protocol=Protocol.HTTP,
        messages=incoming,
        system_text=system_text,
        agent_id=body.get("agent") or None,
        provider_model=body.get("model") or None,
        session_key=session_key,
        idempotency_key=key,
        detached=True,
        metadata=None if metadata is None else orjson.dumps(metadata).decode(),
        webhook=parse_webhook(body),
    )


def in_run_terms(error: GatewayError) -> GatewayError:
    """Return `error` with the parameter names of this request."""
    if error.param in _FIELDS:
        error.param = _FIELDS[error.param]
    elif error.param is not None and error.param.startswith("messages"):
        error.param = f"input{error.param.removeprefix('messages')}"
    return error
