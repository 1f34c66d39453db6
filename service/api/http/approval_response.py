"""Translate approvals to the contract's objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.storage.runs.approvals import ApprovalRecord
from service.storage.sessions.json_objects import to_time


def to_approval_list(found: Sequence[ApprovalRecord], limit: int) -> dict[str, Any]:
    """Return at most `limit`; further elements of `found` mean that more are pending."""
    return {"object": "list", "data": [to_approval(one) for one in found[:limit]], "has_more": len(found) > limit}


def to_approval(approval: ApprovalRecord) -> dict[str, Any]:
    """Translate to an `Approval`."""
    decided_at_ms = approval.decided_at_ms
    return {
        "id": approval.id,
        "object": "approval",
        "state": approval.state,
        "tool": approval.tool,
        "arguments": approval.arguments,
        "tool_call_id": approval.tool_call_id,
        "session_key": approval.session_key,
        "agent": approval.agent_id,
        "run_id": approval.run_id,
        "decisions": approval.decisions,
        "created_at": to_time(approval.created_at_ms),
        "expires_at": to_time(approval.expires_at_ms),
        "decision": approval.decision,
        "decided_by": approval.decided_by,
        "decided_at": None if decided_at_ms is None else to_time(decided_at_ms),
    }
