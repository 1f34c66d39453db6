"""What became of a run, in the protocol's shapes."""

from __future__ import annotations

from typing import Any

from service.agent.events import RunEnded
from service.api.websocket.payloads import to_usage
from service.api.websocket.starts import Start
from service.gateway.gateway import Gateway

#: Why a run that was aborted stopped.
ABORTED = "rpc"


def to_accepted(start: Start) -> dict[str, Any]:
    """The first response to `agent`."""
    return {
        "runId": start.run_id,
        "sessionKey": start.session_key,
        "agentId": start.agent_id,
        "status": "accepted",
        "acceptedAt": start.accepted_at_ms,
    }


def to_outcome(start: Start, end: RunEnded, gateway: Gateway) -> dict[str, Any]:
    """The last response to `agent`; with `status` "error" it goes with an error."""
    if end.error is not None and end.error.code != "run_aborted":
        return {"runId": start.run_id, "status": "error", "summary": end.error.message}
    outcome: dict[str, Any] = {"runId": start.run_id, "status": "ok", "summary": "completed"}
    if end.error is not None:
        outcome |= {"status": "timeout", "summary": "aborted", "stopReason": ABORTED}
    text = start.text
    payloads = [{"text": text, "mediaUrl": None}] if text else []
    duration_ms = (start.ended_at_ms or start.accepted_at_ms) - start.accepted_at_ms
    meta = to_meta(start.agent_id, start.session_key, end, gateway, duration_ms)
    outcome["result"] = {"payloads": payloads, "meta": meta}
    return outcome


def to_meta(agent_id: str, session_key: str, end: RunEnded, gateway: Gateway, duration_ms: int) -> dict[str, Any]:
    """What there is to know of a run besides what was said in it."""
    session = gateway.state.store.get_session(session_key)
    agent_meta: dict[str, Any] = {"agentId": agent_id, "sessionKey": session_key, "usage": to_usage(end.usage)}
    if session is not None:
        agent_meta["sessionId"] = session.session_id
        if session.model is not None:
            agent_meta["provider"], _, agent_meta["model"] = session.model.partition("/")
    return {
        "durationMs": duration_ms,
        "agentMeta": agent_meta,
        "aborted": end.error is not None,
        "stopReason": ABORTED if end.error is not None else str(end.stop_reason),
    }
