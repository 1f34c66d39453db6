"""Export of a session as JSON objects: the session, every message of all branches, and its summaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

from service.core.messages import Usage
from service.storage.sessions.json_objects import (
    to_branches,
    to_message_fields,
    to_parent,
    to_session,
    to_time,
    to_token_counts,
)
from service.storage.sessions.queries import SessionOverview
from service.storage.sessions.transcripts import StoredEntry, TranscriptStore


def export_session(
    store: TranscriptStore, session: SessionOverview, failures: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the session, its messages and its summaries, one object each, read page by page. Raises `StoreError`.

    Nothing of a session that was deleted since it was listed, and of one in use what it has at the start.
    `failures` maps run ids to error codes; messages of these runs get `run_error`.
    """
    tree = store.read_tree(session.key)
    if not tree.entry_count:  # it was deleted, or was stateless and has just been continued
        tree = store.read_tree(session.key)
    if not tree.entry_count:
        return
    yield {**to_session(session), "message_count": tree.entry_count, "branches": to_branches(tree)}
    for entry in takewhile(lambda entry: entry.seq <= tree.tip, store.iter_entries(session.key)):
        message = {**_to_message(session.key, entry), "parent": to_parent(tree, entry.seq)}
        yield message | {"run_error": failures[entry.run_id]} if entry.run_id in failures else message
    for summary in takewhile(lambda summary: summary.covers <= tree.entry_count, store.list_summaries(session.key)):
        yield {
            "object": "session.summary",
            "session_key": session.key,
            "covers": summary.covers,
            **to_message_fields(summary.message),
            "run_id": summary.run_id,
            "created_at": to_time(summary.at_ms),
        }


def _to_message(key: str, entry: StoredEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "object": "session.message",
        "session_key": key,
        "index": entry.seq,
        **to_message_fields(entry.message),
        "run_id": entry.run_id,
        "created_at": to_time(entry.at_ms),
    }
    for name in ("cut_off", "failed"):
        if value := getattr(entry.message, name):
            fields[name] = value
    if entry.input_tokens is not None:  # totals of the turn, on its last message
        fields["model"] = entry.model
        usage = Usage(entry.input_tokens, entry.output_tokens or 0, entry.cached_tokens or 0)
        fields["usage"] = to_token_counts(usage)
    return fields
