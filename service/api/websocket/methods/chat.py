"""`chat.*`: send, abort, read and inject messages."""

from __future__ import annotations

import uuid
from typing import Any

from service.api.websocket.agent_request import MESSAGE, NAME, NO_ATTACHMENTS, find_target
from service.api.websocket.client import ADMIN, READ, WRITE
from service.api.websocket.dispatch import Call, Method
from service.api.websocket.history import to_history
from service.api.websocket.methods.agent import submit
from service.api.websocket.payloads import to_chat_message
from service.core.messages import Role, text_message
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.sessions.keys import shown_run_id

_HISTORY_MESSAGES = 200
_MOST_MESSAGES = 1000

_SEND_IGNORED = (
    *("thinking", "fastMode", "fastAutoOnSeconds", "deliver", "originatingChannel", "originatingTo"),
    *("originatingAccountId", "originatingThreadId", "replyToId", "suppressCommandInterpretation", "sessionId"),
)


def send_message(call: Call) -> Any:
    """Submit a run and respond at once; `chat` events and `agent.wait` report on it."""
    params = {key: value for key, value in call.params.items() if key != "sessionId"}
    timeout_ms = call.params.get("timeoutMs")
    end = submit(call, params, timeout_ms / 1000 if timeout_ms else None).end
    status = "started"
    if end is not None:
        status = "ok" if end.error is None else "error"
    return {"runId": call.params["idempotencyKey"], "status": status}


def abort_runs(call: Call) -> Any:
    """Abort the runs of a session, or the one named, of any protocol."""
    target = find_target(call.context.gateway, call.params, call.client.principal)
    aborted = abort_session(call, target.session_key, call.params.get("runId"))
    return {"ok": True, "aborted": bool(aborted), "runIds": aborted}


def abort_session(call: Call, session_key: str, run_id: str | None) -> list[str]:
    """Abort the queued and running runs of a session, all or the one named; returns what the client calls them."""
    gateway, owner = call.context.gateway, call.client.principal.owner
    here = [run.id for run in gateway.runs.active(session_key)]
    # A recorded run may belong to another process.
    recorded = [run.id for run in gateway.storage.records.list_active(session_key)]
    chosen = [one for one in dict.fromkeys((*here, *recorded)) if run_id in (None, one, shown_run_id(one, owner))]
    for one in chosen:
        gateway.abort(one)
    return [shown_run_id(one, owner) for one in chosen]


def get_history(call: Call) -> Any:
    """Return the last messages of a session, oldest first, and the output of its running run."""
    target = find_target(call.context.gateway, {**call.params, "sessionId": None}, call.client.principal)
    limit, most = call.params.get("limit", _HISTORY_MESSAGES), call.params.get("maxChars")
    return to_history(call.context, target, limit, most, call.client.principal.owner)


def inject_message(call: Call) -> Any:
    """Append an assistant message to a session's transcript, without a model request."""
    context = call.context
    target = find_target(context.gateway, call.params, call.client.principal)
    storage, run_id = context.gateway.storage, f"inject_{uuid.uuid4()}"
    session = storage.transcripts.get_session(target.session_key)
    new = AcceptedRun(run_id, target.session_key, target.agent.id, Protocol.WEBSOCKET, context.now_ms, stateless=False)
    message = text_message(Role.ASSISTANT, call.params["message"])
    model = session.model if session is not None else None
    outcome = RunOutcome(RunState.OK, model=model, messages=(message,), reply_count=1)
    storage.ledger.open(new, target.agent.timeout_seconds).finish(outcome)
    injected = to_chat_message(message.text, context.now_ms)
    context.broadcasts.send_injected(run_id, target.session_key, target.agent.id, injected)
    return {"ok": True, "messageId": run_id}


ROWS = (
    Method(
        "chat.send",
        WRITE,
        send_message,
        {
            "sessionKey": NAME,
            "agentId": NAME,
            "message": MESSAGE,
            "idempotencyKey": NAME,
            "timeoutMs": {"type": "integer", "minimum": 0},
            "attachments": NO_ATTACHMENTS,
        },
        required=("sessionKey", "message", "idempotencyKey"),
        ignored=_SEND_IGNORED,
    ),
    Method(
        "chat.abort",
        WRITE,
        abort_runs,
        {"sessionKey": NAME, "agentId": NAME, "runId": NAME},
        required=("sessionKey",),
        ignored=("preserveSideRuns",),
    ),
    Method(
        "chat.history",
        READ,
        get_history,
        {
            "sessionKey": NAME,
            "agentId": NAME,
            "limit": {"type": "integer", "minimum": 1, "maximum": _MOST_MESSAGES},
            "maxChars": {"type": "integer", "minimum": 1, "maximum": 500_000},
        },
        required=("sessionKey",),
    ),
    Method(
        "chat.inject",
        ADMIN,
        inject_message,
        {"sessionKey": NAME, "agentId": NAME, "message": {"type": "string", "minLength": 1}},
        required=("sessionKey", "message"),
        ignored=("label",),
    ),
)
