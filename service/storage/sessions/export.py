"""Export of a session as JSON objects: the session, every message in order, and its summaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from service.core.messages import Message, Part, Text, Usage
from service.storage.sessions.queries import SessionOverview
from service.storage.sessions.transcripts import StoredEntry, TranscriptStore


def export_session(
    store: TranscriptStore, session: SessionOverview, failures: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the session, its messages and its summaries, one object each, read page by page. Raises `StoreError`.

    `failures` maps run ids to error codes; messages of these runs get `runError`.
    """
    yield {"type": "session", **to_object(session)}
    for entry in store.iter_entries(session.key):
        message = _message_object(session.key, entry)
        yield message | {"runError": failures[entry.run_id]} if entry.run_id in failures else message
    for summary in store.list_summaries(session.key):
        yield {
            "type": "summary",
            "sessionKey": session.key,
            "covers": summary.covers,
            **_message_fields(summary.message),
            "runId": summary.run_id,
            "at": to_time(summary.at_ms),
        }


def to_object(session: SessionOverview) -> dict[str, Any]:
    """Convert the metadata of a session."""
    return {
        "key": session.key,
        "sessionId": session.session_id,
        "agentId": session.agent_id,
        "title": session.title,
        "createdAt": to_time(session.created_at_ms),
        "lastUsedAt": to_time(session.updated_at_ms),
        "messageCount": session.message_count,
        "model": session.model,
        "usage": _usage(session.usage),
        "lastRunId": session.last_run_id,
        "stateless": session.stateless,
    }


def to_time(ms: int) -> str:
    """Format a time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message_object(key: str, entry: StoredEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "type": "message",
        "sessionKey": key,
        "index": entry.seq,
        **_message_fields(entry.message),
        "runId": entry.run_id,
        "at": to_time(entry.at_ms),
    }
    if entry.input_tokens is not None:  # totals of the turn, on its last message
        fields["model"] = entry.model
        fields["usage"] = _usage(Usage(entry.input_tokens, entry.output_tokens or 0, entry.cached_tokens or 0))
    return fields


def _message_fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role.value, "parts": [_part(part) for part in message.parts]}
    if message.name is not None:
        fields["name"] = message.name
    if message.tool_calls:
        fields["toolCalls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["toolCallId"] = message.tool_call_id
    if (approval := message.approval) is not None:
        fields["approval"] = {
            "id": approval.id,
            "decision": approval.decision.value,
            "decidedBy": approval.decided_by,
            "decidedAt": to_time(approval.decided_at_ms),
        }
    return fields


def _part(part: Part) -> dict[str, str]:
    return {"text": part.text} if isinstance(part, Text) else {"imageUrl": part.url, "detail": part.detail}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cachedTokens": usage.cached_tokens,
    }
