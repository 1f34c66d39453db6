"""Connexion's security check, which confirms the check made before the body was read."""

from typing import Any

from flask import g


def principal_of(token: str) -> dict[str, Any] | None:
    """Return the authenticated principal; None (401) if the request was never checked."""
    del token
    principal = g.get("principal")
    return None if principal is None else {"sub": principal}
