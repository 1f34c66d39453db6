"""Translate runs to the contract's objects, and parse the cursor and the states of their list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from service.gateway.run_outcome import failure_of
from service.storage.runs.pages import RunPosition
from service.storage.runs.records import RunRecord, RunState
from service.storage.sessions.json_objects import to_time, to_usage_object

_QUEUED = "queued"


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
        "state": _QUEUED if run.state is RunState.QUEUED else run.state,
        "created_at": to_time(run.accepted_at_ms),
        "started_at": _to_time_or_none(started),
        "first_output_at": _to_time_or_none(run.first_output_at_ms),
        "ended_at": _to_time_or_none(ended),
        "duration_ms": None if started is None or ended is None else max(0, ended - started),
        "model": run.model,
        "step": run.step,
        "tool": run.tool,
        "finish_reason": run.stop_reason,
        "metadata": None if run.metadata is None else orjson.loads(run.metadata),
        "usage": to_usage_object(run.usage),
        "error": failure_of(run).to_envelope()["error"] if failed else None,
    }


def to_run_list(found: Sequence[RunRecord], limit: int) -> dict[str, Any]:
    """Return a page of at most `limit`; further elements of `found` mean that another page follows."""
    page, has_more = found[:limit], len(found) > limit
    cursor = f"{page[-1].accepted_at_ms}.{page[-1].id.encode('utf-8', 'replace').hex()}" if has_more else None
    return {"object": "list", "data": [to_run(one) for one in page], "has_more": has_more, "next_cursor": cursor}


def parse_run_cursor(text: str) -> RunPosition:
    """Parse a `next_cursor`, whose format the contract has checked."""
    accepted_at_ms, _, run_id = text.partition(".")
    # No id has NUL, which PostgreSQL refuses.
    return RunPosition(int(accepted_at_ms), bytes.fromhex(run_id).decode("utf-8", "replace").replace("\0", "\1"))


def parse_run_state(text: str) -> RunState:
    """Parse a `RunState` of the contract."""
    return RunState.QUEUED if text == _QUEUED else RunState(text)


def _to_time_or_none(ms: int | None) -> str | None:
    return None if ms is None else to_time(ms)
