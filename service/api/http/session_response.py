"""Translate sessions and runs to the contract's objects, and parse the cursor of their list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.core.messages import Message, Role
from service.gateway.run_outcome import failure_of
from service.storage.runs.records import RunRecord, RunState
from service.storage.sessions.objects import (
    to_branches,
    to_message_fields,
    to_parent,
    to_session,
    to_time,
    to_token_counts,
)
from service.storage.sessions.queries import Position, RecentMessage, SessionOverview
from service.storage.sessions.tree import SessionTree


def to_session_list(found: Sequence[SessionOverview], limit: int) -> dict[str, Any]:
    """Return a page of at most `limit`; further elements of `found` mean that another page follows."""
    page, has_more = found[:limit], len(found) > limit
    cursor = f"{page[-1].created_at_ms}.{page[-1].session_id}" if has_more else None
    return {"object": "list", "data": [to_session(one) for one in page], "has_more": has_more, "next_cursor": cursor}


def parse_cursor(text: str) -> Position:
    """Parse a `next_cursor`, whose format the contract has checked."""
    created_at_ms, _, session_id = text.partition(".")
    return Position(int(created_at_ms), session_id)


def to_session_with_messages(
    session: SessionOverview, tree: SessionTree, active: Sequence[RunRecord], newest_first: Sequence[RecentMessage]
) -> dict[str, Any]:
    """Translate to a `SessionWithMessages`."""
    return {
        **to_session(session),
        "active_run_ids": [run.id for run in active],
        "branches": to_branches(tree),
        "messages": [_to_session_message(one, tree) for one in reversed(newest_first)],
    }


def _to_session_message(stored: RecentMessage, tree: SessionTree) -> dict[str, Any]:
    message = stored.message or Message(Role(stored.role))
    return {
        "object": "session.message",
        "index": stored.seq,
        "parent": to_parent(tree, stored.seq),
        **to_message_fields(message),
        **({"content": None} if stored.message is None else {}),
        "run_id": stored.run_id,
        "created_at": to_time(stored.at_ms),
    }


def to_run(run: RunRecord) -> dict[str, Any]:
    """Translate to a `Run`."""
    started, ended = run.started_at_ms, run.ended_at_ms
    failed = run.state.is_final and run.state is not RunState.OK
    return {
        "id": run.id,
        "object": "run",
        "session_key": run.session_key,
        "agent": run.agent_id,
        "protocol": run.protocol,
        "state": run.state,
        "created_at": to_time(run.accepted_at_ms),
        "started_at": None if started is None else to_time(started),
        "ended_at": None if ended is None else to_time(ended),
        "duration_ms": None if started is None or ended is None else max(0, ended - started),
        "model": run.model,
        "finish_reason": run.stop_reason,
        "usage": to_token_counts(run.usage),
        "error": failure_of(run).to_envelope()["error"] if failed else None,
    }
