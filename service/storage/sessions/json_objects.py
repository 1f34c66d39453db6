"""Sessions and messages as JSON objects, in one vocabulary for the HTTP API, the command line and exports."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from service.core.messages import Message, Part, Text, ToolApproval, Usage
from service.core.usage import to_dollars
from service.storage.sessions.queries import SessionOverview
from service.storage.sessions.tree import ROOT, SessionTree


def to_session(session: SessionOverview) -> dict[str, Any]:
    """Translate to the contract's `Session`."""
    return {
        "id": session.session_id,
        "object": "session",
        "key": session.key,
        "agent": session.agent_id,
        "title": session.title,
        "created_at": to_time(session.created_at_ms),
        "last_used_at": to_time(session.updated_at_ms),
        "message_count": session.message_count,
        "model": session.model,
        "usage": to_usage_object(session.usage),
        "last_run_id": session.last_run_id,
        "stateless": session.stateless,
    }


def to_branches(tree: SessionTree) -> list[dict[str, Any]]:
    """Translate to a list of the contract's `SessionBranch`, the current one last."""
    return [_to_branch(tree, leaf) for leaf in tree.leaves]


def _to_branch(tree: SessionTree, leaf: int) -> dict[str, Any]:
    path = tree.path_to(leaf)
    return {
        "index": leaf,
        "message_count": sum(map(len, path)),
        "forked_from": path[-2][-1] if len(path) > 1 else None,
        "current": leaf == tree.tip,
    }


def to_parent(tree: SessionTree, seq: int) -> int | None:
    """Return the index of the message that message `seq` follows, `None` for the first of a path."""
    parent = tree.parent_of(seq)
    return None if parent == ROOT else parent


def to_message_fields(message: Message) -> dict[str, Any]:
    """Return the content of a message as the contract's `SessionMessage` has it."""
    return {
        "role": message.role.value,
        "content": [_to_part(part) for part in message.parts],
        "name": message.name,
        "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ],
        "tool_call_id": message.tool_call_id,
        "duration_ms": message.duration_ms,
        "approval": None if message.approval is None else _to_approval(message.approval),
    }


def to_usage_object(usage: Usage) -> dict[str, Any]:
    """Translate to the contract's `TokenCounts`."""
    return {**to_token_counts(usage), "cost": to_dollars(usage.cost_nano)}


def to_token_counts(usage: Usage) -> dict[str, int]:
    """Return the counts of tokens alone."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def to_time(ms: int) -> str:
    """Format a time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _to_approval(approval: ToolApproval) -> dict[str, Any]:
    return {
        "id": approval.id,
        "decision": approval.decision.value,
        "decided_by": approval.decided_by,
        "decided_at": to_time(approval.decided_at_ms),
    }


def _to_part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": part.url, "detail": part.detail}}
