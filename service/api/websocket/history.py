"""Transcripts and session rows in the protocol's form."""

from __future__ import annotations

from typing import Any

from service.api.websocket.agent_request import Target
from service.api.websocket.dispatch import MethodContext
from service.api.websocket.payloads import parse_arguments
from service.core.messages import Image, Message, Part, Role
from service.storage.sessions.keys import shown_run_id
from service.storage.sessions.queries import RecentMessage, SessionOverview

#: Default limit of one text in a history; the rest is cut.
_TEXT_CHARACTERS = 100_000

_ROLES = {Role.TOOL.value: "toolResult"}


def to_history(
    context: MethodContext, target: Target, limit: int, text_characters: int | None, owner: str | None
) -> dict[str, Any]:
    """Return the payload of `chat.history`, for `owner`."""
    key, store = target.session_key, context.gateway.storage.transcripts
    session = store.get_session(key)
    recent = store.load_recent_messages(key, limit) if session is not None else ()
    most = text_characters or _TEXT_CHARACTERS
    answer: dict[str, Any] = {
        "sessionKey": key,
        "agentId": target.agent.id,
        "messages": [_to_message(one, most) for one in reversed(recent)],
    }
    if session is not None:
        answer["sessionId"] = session.session_id
    if (run := _in_flight(context, key)) is not None:
        answer["inFlightRun"] = {**run, "runId": shown_run_id(run["runId"], owner)}
    return answer


def _in_flight(context: MethodContext, key: str) -> dict[str, Any] | None:
    for run in context.gateway.runs.running(key):
        return {"runId": run.id, "text": run.text, "startedAt": run.accepted.accepted_at_ms}
    for record in context.gateway.storage.records.list_active(key):
        if record.state.is_executing:  # in another process: its output is not available here
            return {"runId": record.id, "text": "", "startedAt": record.accepted_at_ms}
    return None


def to_session_row(context: MethodContext, session: SessionOverview) -> dict[str, Any]:
    """Return one row of `sessions.list`."""
    row: dict[str, Any] = {
        "key": session.key,
        "sessionId": session.session_id,
        "kind": "direct",
        "agentId": session.agent_id,
        "updatedAt": session.updated_at_ms,
        "hasActiveRun": bool(context.gateway.runs.running(session.key)),
        "inputTokens": session.usage.input_tokens,
        "outputTokens": session.usage.output_tokens,
        "totalTokens": session.usage.input_tokens + session.usage.output_tokens,
    }
    if session.title:
        row["derivedTitle"] = session.title
    if session.model is not None:
        row["modelProvider"], _, row["model"] = session.model.partition("/")
    return row


def _to_message(recent: RecentMessage, most: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": _ROLES.get(recent.role, recent.role), "timestamp": recent.at_ms}
    if recent.message is None:
        return {**message, "content": [{"type": "text", "text": "(too long to be shown)"}], "truncated": True}
    message["content"] = _to_content(recent.message, most)
    if recent.message.tool_call_id is not None:
        message["toolCallId"] = recent.message.tool_call_id
    return message


def _to_content(message: Message, most: int) -> list[dict[str, Any]]:
    calls = [
        {"type": "toolCall", "id": call.id, "name": call.name, "arguments": parse_arguments(call.arguments)}
        for call in message.tool_calls
    ]
    return [*(_to_part(part, most) for part in message.parts), *calls]


def _to_part(part: Part, most: int) -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "text", "text": "(a picture)"}
    return {"type": "text", "text": part.text[:most]}
