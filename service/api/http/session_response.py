"""Translate sessions to the contract's objects, and parse the cursor of their list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.core.messages import Message, Role
from service.storage.runs.records import RunRecord
from service.storage.sessions.json_objects import (
    to_branches,
    to_message_fields,
    to_parent,
    to_session,
    to_time,
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
