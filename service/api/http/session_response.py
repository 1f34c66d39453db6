"""Translate sessions and runs to the contract's objects, and parse the cursor of their list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.api.http.chat_response import to_usage
from service.core.messages import Message, Part, Role, Text, ToolApproval
from service.gateway.run_outcome import failure_of
from service.storage.runs.records import RunRecord, RunState
from service.storage.sessions.queries import Position, RecentMessage, SessionOverview


def to_session_list(found: Sequence[SessionOverview], limit: int) -> dict[str, Any]:
    """Return a page of at most `limit`; further elements of `found` mean that another page follows."""
    page, has_more = found[:limit], len(found) > limit
    cursor = f"{page[-1].created_at_ms}.{page[-1].session_id}" if has_more else None
    return {"object": "list", "data": [to_session(one) for one in page], "has_more": has_more, "next_cursor": cursor}


def parse_cursor(text: str) -> Position:
    """Parse a `next_cursor`, whose format the contract has checked."""
    created_at_ms, _, session_id = text.partition(".")
    return Position(int(created_at_ms), session_id)


def to_session(session: SessionOverview) -> dict[str, Any]:
    """Translate to a `Session`."""
    return {
        "id": session.session_id,
        "object": "session",
        "key": session.key,
        "agent": session.agent_id,
        "title": session.title,
        "created_at": session.created_at_ms // 1000,
        "last_used_at": session.updated_at_ms // 1000,
        "message_count": session.message_count,
        "model": session.model,
        "usage": to_usage(session.usage),
        "last_run_id": session.last_run_id,
        "stateless": session.stateless,
    }


def to_session_with_messages(
    session: SessionOverview, active: Sequence[RunRecord], newest_first: Sequence[RecentMessage]
) -> dict[str, Any]:
    """Translate to a `SessionWithMessages`."""
    messages = [_to_session_message(one) for one in reversed(newest_first)]
    return {**to_session(session), "active_run_ids": [run.id for run in active], "messages": messages}


def _to_session_message(stored: RecentMessage) -> dict[str, Any]:
    message = stored.message or Message(Role(stored.role))
    return {
        "object": "session.message",
        "index": stored.seq,
        "role": stored.role,
        "content": None if stored.message is None else [_to_part(part) for part in message.parts],
        "name": message.name,
        "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ],
        "tool_call_id": message.tool_call_id,
        "approval": None if message.approval is None else _to_message_approval(message.approval),
        "run_id": stored.run_id,
        "created_at": stored.at_ms // 1000,
    }


def _to_message_approval(approval: ToolApproval) -> dict[str, Any]:
    return {
        "id": approval.id,
        "decision": approval.decision,
        "decided_by": approval.decided_by,
        "decided_at": approval.decided_at_ms // 1000,
    }


def _to_part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": part.url, "detail": part.detail}}


def to_run(run: RunRecord) -> dict[str, Any]:
    """Translate to a `Run`."""
    started, ended = run.started_at_ms, run.ended_at_ms
    failed = run.state.is_final and run.state is not RunState.OK
    return {
        "id": run.id,
        "object": "run",
        "session_key": run.session_key,
        "agent": run.agent_id,
        "door": run.protocol,
        "state": run.state,
        "created_at": run.accepted_at_ms // 1000,
        "started_at": None if started is None else started // 1000,
        "ended_at": None if ended is None else ended // 1000,
        "duration_ms": None if started is None or ended is None else max(0, ended - started),
        "model": run.model,
        "finish_reason": run.stop_reason,
        "usage": to_usage(run.usage),
        "error": failure_of(run).to_envelope()["error"] if failed else None,
    }
