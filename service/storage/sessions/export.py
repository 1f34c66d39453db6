"""A session as JSON objects, complete: itself, every message in order, and the summaries that were made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from service.core.messages import Message, Part, Text, Usage
from service.storage.sessions.queries import SessionOverview
from service.storage.sessions.transcripts import SessionStore, StoredEntry


def export_session(
    store: SessionStore, session: SessionOverview, failures: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """The session, its messages and its summaries, one object each, read page by page. Raises `StoreError`.

    `failures` has the error codes of its runs that have one, which their messages are told with.
    """
    yield {"type": "session", **to_object(session)}
    for entry in store.iter_entries(session.key):
        told = _message_object(session.key, entry)
        yield told | {"runError": failures[entry.run_id]} if entry.run_id in failures else told
    for summary in store.list_summaries(session.key):
        yield {
            "type": "summary",
            "sessionKey": session.key,
            "covers": summary.covers,
            **_said(summary.message),
            "runId": summary.run_id,
            "at": to_time(summary.at_ms),
        }


def to_object(session: SessionOverview) -> dict[str, Any]:
    """What is known of a session as a whole."""
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
    """A time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message_object(key: str, entry: StoredEntry) -> dict[str, Any]:
    told: dict[str, Any] = {
        "type": "message",
        "sessionKey": key,
        "index": entry.seq,
        **_said(entry.message),
        "runId": entry.run_id,
        "at": to_time(entry.at_ms),
    }
    if entry.input_tokens is not None:  # they tell of the whole turn, on its last message
        told["model"] = entry.model
        told["usage"] = _usage(Usage(entry.input_tokens, entry.output_tokens or 0, entry.cached_tokens or 0))
    return told


def _said(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role.value, "parts": [_part(part) for part in message.parts]}
    if message.name is not None:
        told["name"] = message.name
    if message.tool_calls:
        told["toolCalls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        told["toolCallId"] = message.tool_call_id
    return told


def _part(part: Part) -> dict[str, str]:
    return {"text": part.text} if isinstance(part, Text) else {"imageUrl": part.url, "detail": part.detail}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cachedTokens": usage.cached_tokens,
    }
