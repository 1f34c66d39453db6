"""Runs and their results in the protocol's form."""

from __future__ import annotations

from typing import Any

from service.agent.events import RunEnded
from service.agent.run import Run
from service.api.websocket.payloads import to_usage
from service.gateway.gateway import Gateway
from service.storage.runs.records import RunState
from service.storage.sessions.keys import shown_run_id

#: The stop reason that OpenClaw's protocol has for an aborted run.
ABORTED = "rpc"


def to_accepted(run: Run, owner: str | None) -> dict[str, Any]:
    """Return the first response to `agent`, for `owner`."""
    return {
        "runId": shown_run_id(run.id, owner),
        "sessionKey": run.session_key,
        "agentId": run.agent_id,
        "status": "accepted",
        "acceptedAt": run.accepted.accepted_at_ms,
    }


def to_outcome(run: Run, end: RunEnded, gateway: Gateway, owner: str | None) -> dict[str, Any]:
    """Return the last response to `agent`, for `owner`.

    With `status` "error" it is the payload of an error response.
    """
    run_id = shown_run_id(run.id, owner)
    if end.error is not None and end.state is not RunState.ABORTED:
        return {"runId": run_id, "status": "error", "summary": end.error.message}
    outcome: dict[str, Any] = {"runId": run_id, "status": "ok", "summary": "completed"}
    if end.error is not None:
        outcome |= {"status": "timeout", "summary": "aborted", "stopReason": ABORTED}
    text = run.text
    payloads = [{"text": text, "mediaUrl": None}] if text else []
    duration_ms = int(((run.ended_at or run.accepted_at) - run.accepted_at) * 1000)
    meta = to_meta(run, end, gateway, duration_ms)
    outcome["result"] = {"payloads": payloads, "meta": meta}
    return outcome


def to_meta(run: Run, end: RunEnded, gateway: Gateway, duration_ms: int) -> dict[str, Any]:
    """Return the metadata of a run."""
    session = gateway.storage.transcripts.get_session(run.session_key)
    agent_meta: dict[str, Any] = {"agentId": run.agent_id, "sessionKey": run.session_key, "usage": to_usage(end.usage)}
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
