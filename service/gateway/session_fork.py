"""Fork a session: a copy of one of its paths, to go on from there elsewhere."""

from __future__ import annotations

from service.core.errors import GatewayError
from service.gateway.run_outcome import run_not_found
from service.storage.sessions.fork import ForkSession
from service.storage.sessions.keys import key_prefix, owner_of
from service.storage.sessions.queries import SessionOverview
from service.storage.storage import Storage


def fork_session(
    storage: Storage, session: SessionOverview, *, index: int | None, run_id: str | None
) -> SessionOverview:
    """Copy `session` up to message `index`, to the last message of a run, or whole, and return the copy.

    Raises `StoreError`, and `GatewayError`: `invalid_value` for an index without a message, `run_not_found` for a run
    that added no message to the session, `session_not_found` if the session was deleted in the meantime.
    """
    store, last = storage.transcripts, session.message_count - 1
    if run_id is not None:
        found = store.find_last_of_run(session.key, run_id)
        if found is None:
            raise run_not_found(run_id)
        index, _ = found
    end = last if index is None else index
    if not 0 <= end <= last:
        raise no_message("index", end, last)
    key = f"{key_prefix(session.agent_id, owner_of(session.key))}fork:{storage.ledger.new_id()}"
    fork = ForkSession(session.key, end, key, storage.ledger.new_id(), storage.ledger.now_ms())
    forked = store.get_session(key) if storage.database.write(fork) else None
    if forked is None:
        raise GatewayError("session_not_found", "The session was deleted while it was copied.", param="key")
    return forked


def no_message(param: str, index: int, last: int) -> GatewayError:
    """The error for an index beyond the last message of a session."""
    text = f"The session has no message {index}; the last one has the index {last}. `branches` lists the last messages."
    if last < 0:
        text = "The session has no messages yet: its first run goes on. Wait for its end."
    return GatewayError("invalid_value", text, param=param)
