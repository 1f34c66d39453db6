"""Events about approvals, for clients with the scope to decide them: of this process at once, of others soon."""

from __future__ import annotations

import shlex
from typing import Any

import orjson

from service.api.websocket.client import APPROVALS, ConnectedClient
from service.api.websocket.hub import Hub
from service.core.messages import ApprovalDecision
from service.storage.runs.approvals import ApprovalRecord, Approvals, ApprovalState

#: How many pending approvals are followed.
MAX_FOLLOWED = 500

#: The protocol's name for the decision that covers later calls. Here these are the session's.
ALLOW_ALWAYS = "allow-always"


class ApprovalFeed:
    """Sends `exec.approval.requested` and `exec.approval.resolved`, each once to each connection that is open then."""

    def __init__(self, hub: Hub, approvals: Approvals) -> None:
        self._hub = hub
        self._approvals = approvals
        self._pending: set[str] = set()

    def publish(self, approval: ApprovalRecord) -> None:
        """Send the event of an approval that was created or closed."""
        clients = self._clients()
        if approval.state is ApprovalState.PENDING:
            self._pending.add(approval.id)
            _send(clients, "exec.approval.requested", to_pending(approval))
        else:
            self._pending.discard(approval.id)
            _send(clients, "exec.approval.resolved", _to_resolved(approval))

    def refresh(self) -> None:
        """Send the events of what other processes have done since the last call. Raises `StoreError`."""
        if not self._clients():
            self._pending.clear()
            return
        found = {one.id: one for one in self._approvals.list_pending(MAX_FOLLOWED)}
        for approval_id in self._pending - found.keys():
            closed = self._approvals.get(approval_id)
            self._pending.discard(approval_id)
            if closed is not None and closed.state is not ApprovalState.PENDING:
                self.publish(closed)
        for approval_id in found.keys() - self._pending:
            self.publish(found[approval_id])

    def _clients(self) -> list[ConnectedClient]:
        return [client for client in self._hub if client.has_scope(APPROVALS)]


def to_pending(approval: ApprovalRecord) -> dict[str, Any]:
    """Return a pending approval in the protocol's form."""
    return {
        "id": approval.id,
        "request": _to_request(approval),
        "createdAtMs": approval.created_at_ms,
        "expiresAtMs": approval.expires_at_ms,
    }


def to_decision(decision: ApprovalDecision | None) -> str | None:
    """Return the protocol's name of a decision."""
    return ALLOW_ALWAYS if decision is ApprovalDecision.ALLOW_SESSION else decision


def to_command(approval: ApprovalRecord) -> str:
    """Return the command line of `exec`; of other tools the name and the arguments."""
    arguments = orjson.loads(approval.arguments)
    if approval.tool == "exec" and arguments.keys() == {"command"}:
        return str(arguments["command"])
    if approval.tool == "exec" and arguments.keys() == {"argv"}:
        return shlex.join(arguments["argv"])
    return f"{approval.tool} {approval.arguments}"


def to_allowed(approval: ApprovalRecord) -> list[str | None]:
    """Return the protocol's names of the decisions that can be made."""
    return [to_decision(one) for one in approval.decisions]


def _to_request(approval: ApprovalRecord) -> dict[str, Any]:
    return {
        "command": to_command(approval),
        "cwd": orjson.loads(approval.arguments).get("cwd") if approval.tool == "exec" else None,
        "host": "gateway",
        "nodeId": None,
        "security": None,
        "ask": None if approval.subject else "always",
        "agentId": approval.agent_id,
        "sessionKey": approval.session_key,
        "runId": approval.run_id,
        "toolCallId": approval.tool_call_id,
        "allowedDecisions": to_allowed(approval),
        "tool": approval.tool,
        "arguments": approval.arguments,
    }


def _to_resolved(approval: ApprovalRecord) -> dict[str, Any]:
    return {
        "id": approval.id,
        "decision": to_decision(approval.decision),
        "resolvedBy": approval.decided_by,
        "ts": approval.decided_at_ms,
        "request": _to_request(approval),
    }


def _send(clients: list[ConnectedClient], event: str, payload: dict[str, Any]) -> None:
    if clients:
        encoded = orjson.dumps(payload)
        for client in clients:
            client.send_event(event, encoded)
