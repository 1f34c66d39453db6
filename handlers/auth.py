"""Connexion's security check, which confirms the check made before the body was read."""

from service.api.http.connexion_app import PRINCIPAL_KEY, current_request
from service.core.principal import Principal


def principal_of(token: str) -> Principal | None:
    """Return the authenticated principal; None (401) if the request was never checked."""
    del token
    return current_request().environ.get(PRINCIPAL_KEY)
