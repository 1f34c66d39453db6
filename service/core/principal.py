"""The caller of a request: who it is, what it may do and whose data it sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from enum import StrEnum

from service.core.budgets import Budget
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.rate_limits import NO_LIMITS, RateLimits


class Scope(StrEnum):
    """Permission of a named key. `write` includes `chat` and `read`, `admin` is everything on everybody's data."""

    CHAT = "chat"
    READ = "read"
    WRITE = "write"
    METRICS = "metrics"
    ADMIN = "admin"


_INCLUDED = {
    Scope.CHAT: {Scope.CHAT},
    Scope.READ: {Scope.READ},
    Scope.WRITE: {Scope.CHAT, Scope.READ, Scope.WRITE},
    Scope.METRICS: {Scope.METRICS},
    Scope.ADMIN: set(Scope),
}


@record
class Principal:
    """An authenticated caller.

    `key_digest` is that of the text that a named key was sent as, which may have been replaced since. `owner` is the
    namespace of its data in session keys (`service.storage.sessions.keys`); a caller without one is an
    administrator, whose data has none and who sees everybody's. `key_id` and `name` are those of a named key. `scopes`
    are granted directly or in a wider one. `agents` and `models` (`provider/model`, `provider/*`) are those that it may
    use, `None` for all. `limits` and `budget` are the key's own, `user` is the name of a user whom a trusted proxy has
    authenticated.
    """

    owner: str | None = None
    key_id: str | None = None
    name: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)
    agents: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    limits: RateLimits = NO_LIMITS
    user: str | None = None
    budget: Budget | None = None
    key_digest: str = field(default="", repr=False, compare=False)

    @property
    def account(self) -> str:
        """The account of the caller's usage: its API key, or the owner of its data; "" for the gateway's own token."""
        return self.key_id or self.owner or ""

    def may_see(self, owner: str | None) -> bool:
        """Return True if the caller may see the data of `owner`."""
        return self.owner is None or self.owner == owner

    def may_use(self, model: str) -> bool:
        """Return True if the caller's runs may use `model` ("provider/model")."""
        return self.models is None or any(matches_model(pattern.lower(), model.lower()) for pattern in self.models)

    def check_scope(self, *scopes: Scope) -> None:
        """Return if the caller has one of `scopes`; else raise `GatewayError` (`missing_scope`)."""
        if self.scopes.isdisjoint(scopes):
            text = f"This API key does not have the scope {' or '.join(scopes)}. Its operator can create one that has."
            raise GatewayError("missing_scope", text)


def matches_model(pattern: str, model: str) -> bool:
    """Return True if the lower-case `model` is `pattern`, or one of its provider if that is `provider/*`."""
    return model == pattern or (pattern.endswith("/*") and model.startswith(pattern[:-1]))


def closure_of(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Return `scopes` and those they include."""
    return frozenset().union(*(_INCLUDED[scope] for scope in scopes))


#: The caller with the gateway's own token or password, or any caller if there is no authentication.
ADMINISTRATOR = Principal()
