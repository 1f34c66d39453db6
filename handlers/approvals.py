"""`/v1/approvals`: tool calls that wait for a decision."""

from typing import Any

from service.api.http.approval_response import to_approval, to_approval_list
from service.api.http.connexion_app import current_gateway, current_principal, current_request
from service.api.http.http_response import Response, json_response
from service.core.logs import access_entry
from service.core.messages import ApprovalDecision


def list_approvals(limit: int) -> Response:
    """List the pending approvals, oldest first."""
    gateway = current_gateway()
    return json_response(to_approval_list(gateway.storage.approvals.list_pending(limit + 1), limit))


def decide_approval(approval_id: str, body: dict[str, Any]) -> Response:
    """Decide a pending approval."""
    gateway = current_gateway()
    # A caller with the gateway's own secret is known by its address only.
    decided_by = f"http {current_principal().name or access_entry(current_request().environ).client}"
    decided = gateway.storage.approvals.decide(approval_id, ApprovalDecision(body["decision"]), decided_by)
    return json_response(to_approval(decided))
