"""`/v1/sessions`: stored conversations."""

from collections.abc import Sequence
from typing import Any

from service.api.http.connexion_app import current_gateway, current_principal
from service.api.http.http_response import Response, created_response, json_response
from service.api.http.session_response import parse_cursor, to_session_list, to_session_with_messages
from service.core.errors import GatewayError
from service.gateway import session_list
from service.gateway.session_fork import fork_session, no_message
from service.storage.runs.records import RunRecord
from service.storage.sessions.json_objects import to_session
from service.storage.sessions.keys import resolve_stored_key
from service.storage.sessions.queries import SessionOverview


def list_sessions(
    limit: int, agent: str | None = None, stateless: bool | None = None, after: str | None = None
) -> Response:
    """List a page of sessions, newest first."""
    gateway = current_gateway()
    position = None if after is None else parse_cursor(after)
    agent_id = None if agent is None else agent.lower()
    found = session_list.list_sessions(
        *(gateway.storage, gateway.runs, position, limit + 1),
        agent_id=agent_id,
        stateless=stateless,
        owner=current_principal().owner,
    )
    return json_response(to_session_list(found, limit))


def get_session(key: str, limit: int, branch: int | None = None) -> Response:
    """Return one session with the last messages of a branch."""
    storage = current_gateway().storage
    session = _find_session(_find_key(key))
    tree = storage.transcripts.read_tree(session.key)
    if branch is not None and branch > tree.tip:
        raise no_message("branch", branch, tree.tip)
    active = storage.records.list_active(session.key)
    recent = storage.transcripts.load_recent_messages(session.key, limit, branch)
    return json_response(to_session_with_messages(session, tree, active, recent))


def create_fork(key: str, body: dict[str, Any]) -> Response:
    """Copy a session up to a message to a new session."""
    storage = current_gateway().storage
    index, run_id = body.get("index"), body.get("run_id")
    if index is not None and run_id is not None:
        raise GatewayError("invalid_value", "Send `index` or `run_id`, not both.", param="index")
    session = _find_session(_find_key(key))
    return created_response(to_session(fork_session(storage, session, index=index, run_id=run_id)))


def delete_session(key: str) -> Response:
    """Delete a session that no run uses."""
    storage = current_gateway().storage
    key = _find_key(key)
    deleted = storage.transcripts.delete_session(key)
    if deleted is None:
        raise _busy(storage.records.list_active(key))
    if not deleted:
        raise _not_found(key)
    return json_response({"object": "session.deleted", "key": key, "deleted": True})


def _find_key(key: str) -> str:
    gateway = current_gateway()
    storage = gateway.storage
    # A session whose first run has not ended exists, though without messages.
    principal = current_principal()
    found = resolve_stored_key(
        key,
        gateway.roster.of(principal).default.id,
        lambda one: storage.transcripts.get_session(one) or storage.records.list_active(one),
        principal.owner,
    )
    if found is None:
        raise _not_found(key.encode("utf-8", "replace").decode())
    return found


def _find_session(key: str) -> SessionOverview:
    """Return a session, which exists from the moment its first run is accepted."""
    gateway = current_gateway()
    storage = gateway.storage
    found: SessionOverview | None = storage.transcripts.get_session(key)
    if found is None:
        active = storage.records.list_active(key)
        # The run may have ended in between.
        found = session_list.begun_by(active[0], gateway.runs) if active else storage.transcripts.get_session(key)
    if found is None:
        raise _not_found(key)
    return found


def _not_found(key: str) -> GatewayError:
    text = f'No session "{key[:200]}" was found. GET /v1/sessions lists the keys; they are in lower case.'
    return GatewayError("session_not_found", text, param="key")


def _busy(active: Sequence[RunRecord]) -> GatewayError:
    holder = next((run.id for run in active if run.state.is_executing), None)
    if holder is None:  # it has ended meanwhile
        return GatewayError("session_busy", "A run used this session. Try again.")
    text = f"Run {holder} uses this session. Wait for its end or POST /v1/runs/{holder}/cancel, then try again."
    return GatewayError("session_busy", text, param="key")
