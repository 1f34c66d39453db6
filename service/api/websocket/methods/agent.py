"""`agent` and `agent.wait`: run an agent and wait for its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.agent.events import RunEnded
from service.agent.run import Run
from service.api.websocket.agent_request import MESSAGE, NAME, NO_ATTACHMENTS, resolve_run_id, to_agent_request
from service.api.websocket.client import WRITE
from service.api.websocket.dispatch import Call, FailedWithPayload, Method
from service.api.websocket.run_result import ABORTED, to_accepted, to_outcome
from service.core.errors import GatewayError, internal_error
from service.storage.runs.records import RunState

_WAIT_MS = 30_000
_UNKNOWN_RUN = "Unknown run id. The id of a run is the idempotencyKey of its request."
_LONGEST_WAIT_MS = 24 * 3600 * 1000

#: Parameters of the protocol without effect on an agent without channels and devices.
_IGNORED = (
    *("to", "replyTo", "thinking", "deliver", "replyChannel", "accountId", "replyAccountId", "threadId", "groupId"),
    *("groupChannel", "groupSpace", "bestEffortDeliver", "lane", "cleanupBundleMcpOnRunEnd", "inputProvenance"),
    *("label", "promptMode", "bootstrapContextMode", "bootstrapContextRunKind", "sourceReplyDeliveryMode"),
)


def submit(call: Call, params: Mapping[str, Any], timeout_seconds: float | None) -> Run:
    """Submit a run, or return the run that an earlier request with the same key submitted."""
    request = to_agent_request(params, timeout_seconds, call.client.principal)
    run = call.context.gateway.submit(request, call.client.request_id, call.trace)
    run.retain(call.hold)
    return run


def run_agent(call: Call) -> Any:
    """Respond twice: when the run is accepted and when it has ended; once if it had ended before."""
    run = submit(call, call.params, call.params.get("timeout"))
    if run.end is None:
        call.respond(to_accepted(run, call.client.principal.owner))
    end = run.wait_for_end(None) or RunEnded(error=internal_error())
    outcome = to_outcome(run, end, call.context.gateway, call.client.principal.owner)
    if outcome["status"] == "error":
        raise FailedWithPayload(_as_unavailable(end.error or internal_error()), outcome)
    return outcome


def _as_unavailable(error: GatewayError) -> GatewayError:
    # Once accepted the request was valid: later errors are about the run.
    details = {"code": error.kind.detail or error.code.upper()}
    return GatewayError("run_failed", error.message, headers=error.headers, details=details)


def wait_for_run(call: Call) -> Any:
    """Respond when the run has ended, or with `status` "timeout" after `timeoutMs`."""
    run_id = call.params["runId"]
    timeout_ms = min(call.params.get("timeoutMs", _WAIT_MS), _LONGEST_WAIT_MS)
    run = _wait(call, run_id, timeout_ms / 1000)
    end = run.end
    answer: dict[str, Any] = {"runId": run_id, "status": "timeout", "startedAt": run.accepted.accepted_at_ms}
    if end is None:
        return answer
    if run.ended_at is not None:
        answer["endedAt"] = int(run.ended_at * 1000)
    if end.error is None:
        return answer | {"status": "ok", "stopReason": str(end.stop_reason)}
    if end.state is RunState.ABORTED:
        return answer | {"stopReason": ABORTED}
    return answer | {"status": "error", "error": end.error.message}


def _wait(call: Call, run_id: str, seconds: float) -> Run:
    gateway = call.context.gateway
    unknown = GatewayError("run_not_found", _UNKNOWN_RUN, param="runId")
    try:
        run_id = resolve_run_id(gateway, run_id, call.client.principal)
    except GatewayError as error:
        raise unknown if error.code == unknown.code else error from None
    here = gateway.runs.find(run_id)
    run = here or gateway.find(run_id)
    if run is None:
        raise unknown
    if run.wait_for_end(seconds) is None and run is not here:
        run.abort()  # a replay without other readers
    return run


ROWS = (
    Method(
        "agent",
        WRITE,
        run_agent,
        {
            "message": MESSAGE,
            "idempotencyKey": NAME,
            "agentId": NAME,
            "sessionKey": NAME,
            "sessionId": NAME,
            "provider": {"type": "string", "maxLength": 256},
            "model": {"type": "string", "maxLength": 256},
            "timeout": {"type": "integer", "minimum": 0},
            "extraSystemPrompt": {"type": "string"},
            "channel": {"type": "string", "maxLength": 256},
            "attachments": NO_ATTACHMENTS,
            "jsonSchema": {"type": "object"},
        },
        required=("message", "idempotencyKey"),
        ignored=_IGNORED,
    ),
    Method(
        "agent.wait",
        WRITE,
        wait_for_run,
        {"runId": NAME, "timeoutMs": {"type": "integer", "minimum": 0}},
        required=("runId",),
    ),
)
