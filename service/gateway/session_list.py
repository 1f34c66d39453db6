"""The list of sessions: the stored ones, and those whose first run goes on."""

from __future__ import annotations

from service.gateway.run_registry import RunRegistry
from service.storage.runs.records import RunRecord
from service.storage.sessions.keys import owner_of
from service.storage.sessions.queries import Position, SessionOverview, to_new_session
from service.storage.storage import Storage


def list_sessions(
    storage: Storage,
    runs: RunRegistry,
    after: Position | None,
    limit: int,
    *,
    agent_id: str | None,
    stateless: bool | None,
    owner: str | None,
) -> tuple[SessionOverview, ...]:
    """Return at most `limit` sessions, newest first, starting after the cursor `after`. Raises `StoreError`.

    A new session has its place from the moment its first run is accepted.
    """
    new = () if stateless else storage.records.list_in_new_sessions()  # first: one that ends is then stored
    stored = storage.transcripts.list_from(after, limit, agent_id=agent_id, stateless=stateless, owner=owner)
    of_owner = [run for run in reversed(new) if owner in (None, owner_of(run.session_key))]
    listed = {run.session_key: begun_by(run, runs) for run in of_owner if agent_id in (None, run.agent_id)}
    listed = {key: one for key, one in listed.items() if after is None or _place(one) < _place(after)}
    listed |= {one.key: one for one in stored}
    return tuple(sorted(listed.values(), key=_place, reverse=True)[:limit])


def begun_by(run: RunRecord, runs: RunRegistry) -> SessionOverview:
    """Return the session whose first run, `run`, has not ended. It has a title in the process that executes the run."""
    found = runs.find(run.id)
    return to_new_session(run, None if found is None else found.title)


def _place(one: SessionOverview | Position) -> tuple[int, str]:
    return one.created_at_ms, one.session_id
