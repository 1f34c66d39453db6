"""Connexion's security check, which confirms the check made before the body was read."""

from typing import Any

from service.api.http.connexion_app import PRINCIPAL_KEY, current_request


def principal_of(token: str) -> dict[str, Any] | None:
    """Return the authenticated principal; None (401) if the request was never checked."""
    del token
    principal = current_request().environ.get(PRINCIPAL_KEY)
    return None if principal is None else {"sub": principal}
