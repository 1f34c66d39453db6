"""`sessions.*`: stored sessions."""

from __future__ import annotations

from typing import Any

from service.api.websocket.agent_request import NAME, find_target, resolve_run_id
from service.api.websocket.client import ADMIN, READ, WRITE
from service.api.websocket.dispatch import Call, Method
from service.api.websocket.history import to_history, to_session_row
from service.api.websocket.methods.chat import abort_session
from service.core.concurrency import sleep
from service.core.errors import GatewayError

_LISTED = 100
_MOST_LISTED = 1000
_MESSAGES = 200

#: Time limit and polling interval of the wait for an aborted run to release its session.
_RELEASE_SECONDS = 10.0
_POLL_SECONDS = 0.05

_LIST_IGNORED = (
    *("includeGlobal", "includeUnknown", "configuredAgentsOnly", "includeDerivedTitles", "includeLastMessage"),
    *("requireLastInteraction", "ownerFirst", "includePeople", "sortBy"),
)


def list_sessions(call: Call) -> Any:
    """List sessions, most recently used first."""
    context, params, principal = call.context, call.params, call.client.principal
    named = {"agentId": params.get("agentId")}
    agent = find_target(context.gateway, named, principal).agent.id if "agentId" in params else None
    since_ms = max(0, context.now_ms - params["activeMinutes"] * 60_000) if "activeMinutes" in params else 0
    found = context.gateway.storage.transcripts.list_sessions(
        agent,
        min(params.get("limit", _LISTED), _MOST_LISTED),
        search=params.get("search", "").lower(),
        since_ms=since_ms,
        owner=principal.owner,
    )
    rows = [to_session_row(context, one) for one in found]
    return {"ts": context.now_ms, "count": len(rows), "sessions": rows}


def get_session(call: Call) -> Any:
    """Return one session and its last messages."""
    target = find_target(call.context.gateway, call.params, call.client.principal, "key")
    session = call.context.gateway.storage.transcripts.get_session(target.session_key)
    if session is None:
        text = "Unknown session. sessions.list returns the existing ones."
        raise GatewayError("session_not_found", text, param="key")
    history = to_history(call.context, target, call.params.get("limit", _MESSAGES), None, call.client.principal.owner)
    return {"session": to_session_row(call.context, session), **history}


def abort_sessions(call: Call) -> Any:
    """Abort the runs of a session, or one run in any process."""
    run_id, key = call.params.get("runId"), call.params.get("key")
    if key is None:
        key = _session_of(call, call.params["runId"])
    target = find_target(call.context.gateway, {"key": key}, call.client.principal, "key")
    ended = abort_session(call, target.session_key, run_id)
    return {"ok": True, "abortedRunId": ended[0] if ended else None, "status": "aborted" if ended else "no-active-run"}


def _session_of(call: Call, run_id: str) -> str:
    gateway = call.context.gateway
    try:
        run_id = resolve_run_id(gateway, run_id, call.client.principal)
        # A run that is only recorded may belong to another process.
        if (found := gateway.runs.find(run_id) or gateway.storage.records.get(run_id)) is not None:
            return found.session_key
    except GatewayError as error:
        if error.code != "run_not_found":
            raise
    raise GatewayError("run_not_found", "Send the `key` of a session or the `runId` of an active run.", param="key")


def delete_session(call: Call) -> Any:
    """Delete a session and its transcript, after its runs were aborted."""
    key, deleted = _delete(call, "session-deleted")
    return {"ok": True, "key": key, "deleted": deleted, "archived": []}


def reset_session(call: Call) -> Any:
    """Reset a session: its transcript is deleted, its key stays usable."""
    key, _ = _delete(call, "session-reset")
    return {"ok": True, "key": key}


def _delete(call: Call, reason: str) -> tuple[str, bool]:
    target = find_target(call.context.gateway, call.params, call.client.principal, "key")
    key, store = target.session_key, call.context.gateway.storage.transcripts
    abort_session(call, key, None)
    give_up_at = call.context.clock() + _RELEASE_SECONDS
    while (deleted := store.delete_session(key)) is None:
        if call.context.clock() > give_up_at:
            text = "A run of this session is active and does not end. Try again, or abort it with sessions.abort."
            raise GatewayError("session_busy", text, param="key")
        sleep(_POLL_SECONDS)
    if deleted:
        call.context.broadcasts.send_session(key, target.agent.id, reason)
    return key, deleted


def subscribe(call: Call) -> Any:
    """Subscribe the connection to `sessions.changed`."""
    call.client.follows_sessions = True
    return {"subscribed": True}


def unsubscribe(call: Call) -> Any:
    """Unsubscribe the connection from `sessions.changed`."""
    call.client.follows_sessions = False
    return {"subscribed": False}


ROWS = (
    Method(
        "sessions.list",
        READ,
        list_sessions,
        {
            "limit": {"type": "integer", "minimum": 1},
            "activeMinutes": {"type": "integer", "minimum": 1},
            "agentId": NAME,
            "search": {"type": "string"},
        },
        ignored=_LIST_IGNORED,
    ),
    Method(
        "sessions.get",
        READ,
        get_session,
        {"key": NAME, "agentId": NAME, "limit": {"type": "integer", "minimum": 1, "maximum": 1000}},
        required=("key",),
    ),
    Method(
        "sessions.abort",
        WRITE,
        abort_sessions,
        {"key": NAME, "runId": NAME, "agentId": NAME},
        ignored=("clearQueued",),
        any_of=("key", "runId"),
    ),
    Method(
        "sessions.delete",
        ADMIN,
        delete_session,
        {"key": NAME, "agentId": NAME},
        required=("key",),
        ignored=("deleteTranscript", "emitLifecycleHooks"),
    ),
    Method("sessions.reset", ADMIN, reset_session, {"key": NAME, "agentId": NAME}, ("key",), ("reason",)),
    Method("sessions.subscribe", READ, subscribe),
    Method("sessions.unsubscribe", READ, unsubscribe),
)
