"""`exec.approval.*`: tool calls, of any tool, that wait for a decision."""

from __future__ import annotations

import uuid
from typing import Any

import orjson

from service.api.websocket.agent_request import NAME, find_target
from service.api.websocket.approval_feed import (
    ALLOW_ALWAYS,
    MAX_FOLLOWED,
    to_allowed,
    to_command,
    to_decision,
    to_pending,
)
from service.api.websocket.client import APPROVALS
from service.api.websocket.dispatch import Call, Method
from service.core.errors import GatewayError
from service.core.messages import ApprovalDecision
from service.storage.runs.approvals import NO_RUN, ApprovalRecord, ApprovalState, NewApproval

_DECISIONS = {str(one): one for one in ApprovalDecision} | {ALLOW_ALWAYS: ApprovalDecision.ALLOW_SESSION}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 65_536}
_NAME_OR_NULL = {**NAME, "nullable": True}
_TIMEOUT_MS = {"type": "integer", "minimum": 1, "maximum": 24 * 3600 * 1000}
#: Refused by the method itself, in the words of OpenClaw.
_DECISION = {**NAME, "x-values": list(_DECISIONS)}
_WAIT_MS = 30 * 60 * 1000

_REQUEST_IGNORED = (
    *("host", "security", "ask", "warningText", "unavailableDecisions", "commandSpans", "resolvedPath", "scope"),
    *("turnSourceChannel", "turnSourceTo", "turnSourceAccountId", "turnSourceThreadId", "approvalReviewerDeviceIds"),
    *("requireDeliveryRoute", "suppressDelivery", "deliverToApprovalClientsOnly", "sessionId"),
)


def list_pending(call: Call) -> Any:
    """The pending approvals, the oldest first."""
    return [to_pending(one) for one in call.context.gateway.storage.approvals.list_pending(MAX_FOLLOWED)]


def get_approval(call: Call) -> Any:
    """One pending approval."""
    found = _find(call)
    if found.state is not ApprovalState.PENDING:
        raise _not_found()
    return {
        "id": found.id,
        "commandText": to_command(found),
        "commandPreview": None,
        "allowedDecisions": to_allowed(found),
        "host": "gateway",
        "nodeId": None,
        "agentId": found.agent_id,
        "expiresAtMs": found.expires_at_ms,
    }


def resolve_approval(call: Call) -> Any:
    """Decide a pending approval; the first decision counts."""
    decision = _DECISIONS.get(call.params["decision"])
    if decision is None:
        text = f"invalid decision. Use one of: {', '.join(_DECISIONS)}."
        raise GatewayError("invalid_value", text, param="decision")
    decided_by = f"websocket {call.client.principal.name or call.client.name}"
    try:
        call.context.gateway.storage.approvals.decide(call.params["id"], decision, decided_by)
    except GatewayError as error:
        if error.code == "approval_not_found":
            raise _not_found() from None
        if error.code == "approval_closed":
            details = {"reason": error.kind.detail}
            raise GatewayError(error.code, error.message, param="id", details=details) from None
        raise
    return {"ok": True}


def wait_for_decision(call: Call) -> Any:
    """Respond when an approval is closed, or without a decision after `timeoutMs`."""
    found = _find(call)
    approvals = call.context.gateway.storage.approvals
    approvals.wait([found.id], call.params.get("timeoutMs", _WAIT_MS) / 1000)
    return _to_outcome(approvals.get(found.id) or found)


def request_approval(call: Call) -> Any:
    """Ask for the approval of a command that the client runs; respond when it is decided.

    With `twoPhase` there are two responses: accepted at once, then the decision, null if nobody decided in time.
    """
    target = find_target(call.context.gateway, {**call.params, "sessionId": None}, call.client.principal)
    approvals = call.context.gateway.storage.approvals
    new = _to_new(call, target.agent.id, target.session_key)
    approvals.create([new])
    if call.params.get("twoPhase"):
        times = {"createdAtMs": new.created_at_ms, "expiresAtMs": new.expires_at_ms}
        call.respond({"status": "accepted", "id": new.id, **times})
    approvals.wait([new.id], (new.expires_at_ms - new.created_at_ms) / 1000)
    (closed,) = approvals.close([new.id], new.run_id, ApprovalState.EXPIRED)
    return _to_outcome(closed)


def _to_new(call: Call, agent_id: str, session_key: str) -> NewApproval:
    params, now_ms = call.params, call.context.now_ms
    shown = {"command": "command", "commandArgv": "argv", "cwd": "cwd", "env": "env"}
    arguments = {name: params[key] for key, name in shown.items() if params.get(key)}
    approval_id = params.get("id") or str(uuid.uuid4())
    if call.context.gateway.storage.approvals.get(approval_id) is not None:
        raise GatewayError("invalid_value", "approval id already pending or decided. Send another one.", param="id")
    return NewApproval(
        id=approval_id,
        session_key=session_key,
        run_id=params.get("runId") or approval_id,
        agent_id=agent_id,
        tool="exec",
        arguments=orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS).decode(),
        tool_call_id=params.get("toolCallId") or "",
        subject=NO_RUN,  # what the client does with an answer for more than one command is not known here
        created_at_ms=now_ms,
        expires_at_ms=now_ms + params.get("timeoutMs", _WAIT_MS),
    )


def _to_outcome(approval: ApprovalRecord) -> dict[str, Any]:
    times = {"createdAtMs": approval.created_at_ms, "expiresAtMs": approval.expires_at_ms}
    return {"id": approval.id, "decision": to_decision(approval.decision), **times}


def _find(call: Call) -> ApprovalRecord:
    found = call.context.gateway.storage.approvals.get(call.params["id"])
    if found is None:
        raise _not_found()
    return found


def _not_found() -> GatewayError:
    # The words and the reason are those that clients look for.
    text = "unknown or expired approval id. exec.approval.list has the pending ones."
    return GatewayError("approval_not_found", text, param="id", details={"reason": "APPROVAL_NOT_FOUND"})


ROWS = (
    Method("exec.approval.list", APPROVALS, list_pending),
    Method("exec.approval.get", APPROVALS, get_approval, {"id": NAME}, required=("id",)),
    Method(
        "exec.approval.resolve", APPROVALS, resolve_approval, {"id": NAME, "decision": _DECISION}, ("id", "decision")
    ),
    Method(
        "exec.approval.waitDecision",
        APPROVALS,
        wait_for_decision,
        {"id": NAME, "timeoutMs": _TIMEOUT_MS},
        required=("id",),
    ),
    Method(
        "exec.approval.request",
        APPROVALS,
        request_approval,
        {
            "id": {**NAME, "maxLength": 128},
            "command": _TEXT,
            "commandArgv": {"type": "array", "items": {"type": "string"}, "maxItems": 1024},
            "cwd": {**_TEXT, "nullable": True},
            "env": {"type": "object", "additionalProperties": {"type": "string"}},
            "agentId": _NAME_OR_NULL,
            "sessionKey": _NAME_OR_NULL,
            "runId": _NAME_OR_NULL,
            "toolCallId": _NAME_OR_NULL,
            "timeoutMs": _TIMEOUT_MS,
            "twoPhase": {"type": "boolean"},
        },
        ignored=_REQUEST_IGNORED,
        any_of=("command", "commandArgv"),
    ),
)
