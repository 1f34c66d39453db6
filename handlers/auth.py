"""Connexion's own look at the credentials: the second guard, behind the one that works before the body is read."""

from typing import Any

from flask import g


def principal_of(token: str) -> dict[str, Any] | None:
    """The principal the request was let in as; None (401) if it was never checked."""
    del token
    principal = g.get("principal")
    return None if principal is None else {"sub": principal}
