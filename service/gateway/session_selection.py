"""Choose the session of a run, and check that its key fits into a response header."""

from __future__ import annotations

from collections.abc import Callable, Container

from service.core.errors import GatewayError
from service.storage.sessions.keys import (
    MAX_HEADER_CHARACTERS,
    SESSION_KEY_HEADER,
    SessionKey,
    encode_session_key,
    session_key_for,
)

_SHOWN_CHARACTERS = 200


def choose_session(
    agent_id: str,
    header_key: str | None,
    user: str | None,
    new_id: Callable[[], str],
    agents: Container[str] = (),
    owner: str | None = None,
) -> SessionKey:
    """Return the session key of `session_key_for`; raises its errors.

    Also raises `GatewayError` (`invalid_value`) for a header's key that belongs to another of the `agents`, and for one
    whose full encoded form exceeds the header limit: a client could not send it back to continue the session.
    """
    if header_key:
        _check_owner(agent_id, header_key, agents)
    session = session_key_for(agent_id, header_key, user, new_id, owner)
    length = len(encode_session_key(session.key))
    if length > MAX_HEADER_CHARACTERS:
        text = (
            f"The header {SESSION_KEY_HEADER} stands for a key of {length} characters, completed with the agent's name "
            f"and percent-encoded, where {MAX_HEADER_CHARACTERS} are allowed. Use a shorter key."
        )
        raise GatewayError("invalid_value", text, param=SESSION_KEY_HEADER)
    return session


def _check_owner(agent_id: str, header_key: str, agents: Container[str]) -> None:
    name, _, rest = header_key.lower().partition(":")
    owner, _, own_part = rest.partition(":")
    if name == "agent" and own_part and owner != agent_id.lower() and owner in agents:
        text = (
            f"The session `{header_key[:_SHOWN_CHARACTERS]}` belongs to the agent {owner}, but the request is to the "
            f"agent {agent_id}. Choose that agent with `model` or x-openclaw-agent-id, or another session key."
        )
        raise GatewayError("invalid_value", text, param=SESSION_KEY_HEADER)
