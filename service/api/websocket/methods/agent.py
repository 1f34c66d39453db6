"""`agent`, `agent.wait`: running an agent and hearing what became of it."""

from __future__ import annotations

from typing import Any

import orjson

from service.agent.events import RunEnded
from service.agent.run import Run
from service.api.websocket.agent_request import NAME, Target, find_target, to_turn
from service.api.websocket.client import WRITE
from service.api.websocket.dispatch import Call, FailedWithPayload, Method
from service.api.websocket.run_result import ABORTED, to_accepted, to_outcome
from service.api.websocket.starts import Start
from service.core.errors import GatewayError, internal_error

_MESSAGE = {"type": "string", "minLength": 1}
_WAIT_MS = 30_000
_LONGEST_WAIT_MS = 24 * 3600 * 1000

#: What else the protocol lets `agent` carry that makes no difference to an agent without channels and devices.
_IGNORED = (
    *("to", "replyTo", "thinking", "deliver", "replyChannel", "accountId", "replyAccountId", "threadId", "groupId"),
    *("groupChannel", "groupSpace", "bestEffortDeliver", "lane", "cleanupBundleMcpOnRunEnd", "inputProvenance"),
    *("label", "promptMode", "bootstrapContextMode", "bootstrapContextRunKind", "sourceReplyDeliveryMode"),
)


def begin(call: Call, target: Target, timeout_seconds: float | None) -> Start:
    """Ask for the run that a call's parameters describe, or find it if it was asked for before."""
    params = call.params
    turn = to_turn(target, params, timeout_seconds)
    call.desk.gateway.catalog.choices(turn.provider_model, target.agent)
    asked = orjson.dumps([target.session_key, params["message"], turn.provider_model, turn.system_text, turn.channel])
    return call.desk.starts.begin(
        turn,
        run_id=params["idempotencyKey"],
        session_key=target.session_key,
        agent_id=target.agent.id,
        asked=asked,
    )


def run_agent(call: Call) -> Any:
    """Answers twice: when the run is accepted, and when it is over; once if it was over before."""
    if call.params.get("attachments"):
        text = "Attachments are not taken here. Send pictures to the HTTP endpoint, in the message's content."
        raise GatewayError("unsupported_parameter", text, param="attachments")
    start = begin(call, find_target(call.desk.gateway, call.params), call.params.get("timeout"))
    if start.end is None:
        call.respond(to_accepted(start))
        start.over.wait()
    end = start.end or RunEnded(error=internal_error())
    outcome = to_outcome(start, end, call.desk.gateway)
    if outcome["status"] == "error":
        raise FailedWithPayload(_as_unavailable(end.error or internal_error()), outcome)
    return outcome


def _as_unavailable(error: GatewayError) -> GatewayError:
    # The request was right once it was accepted: whatever comes later is about the run.
    details = {"code": error.kind.detail or error.code.upper()}
    return GatewayError("run_failed", error.message, headers=error.headers, details=details)


def wait_for_run(call: Call) -> Any:
    """Answers when the run is over, or with `status` "timeout" when the time is."""
    run_id, desk = call.params["runId"], call.desk
    timeout_ms = min(call.params.get("timeoutMs", _WAIT_MS), _LONGEST_WAIT_MS)
    start = desk.starts.find(run_id)
    if start is not None:
        start.over.wait(timeout_ms / 1000)
        end, started_at, ended_at = start.end, start.accepted_at_ms, start.ended_at_ms
    else:
        run = _wait_for_other(call, run_id, timeout_ms / 1000)
        end, started_at = run.end, int(run.created_at * 1000)
        ended_at = None if run.ended_at is None else int(run.ended_at * 1000)
    answer: dict[str, Any] = {"runId": run_id, "status": "timeout", "startedAt": started_at}
    if end is None:
        return answer
    if ended_at is not None:
        answer["endedAt"] = ended_at
    if end.error is None:
        return answer | {"status": "ok", "stopReason": str(end.stop_reason)}
    if end.error.code == "run_aborted":
        return answer | {"stopReason": ABORTED}
    return answer | {"status": "error", "error": end.error.message}


def _wait_for_other(call: Call, run_id: str, seconds: float) -> Run:
    """Wait for a run that this door did not begin in this process."""
    here = call.desk.gateway.runs.find(run_id)
    run = here or call.desk.gateway.find(run_id)
    if run is None:
        text = "There is no run with this id. A run's id is the idempotencyKey it was asked for with."
        raise GatewayError("run_not_found", text, param="runId")
    if run.wait_for_end(seconds) is None and run is not here:
        run.abort()  # what is told again to nobody need not be
    return run


ROWS = (
    Method(
        "agent",
        WRITE,
        run_agent,
        {
            "message": _MESSAGE,
            "idempotencyKey": NAME,
            "agentId": NAME,
            "sessionKey": NAME,
            "sessionId": NAME,
            "provider": {"type": "string", "maxLength": 256},
            "model": {"type": "string", "maxLength": 256},
            "timeout": {"type": "integer", "minimum": 0},
            "extraSystemPrompt": {"type": "string"},
            "channel": {"type": "string", "maxLength": 256},
            "attachments": {"type": "array"},
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
