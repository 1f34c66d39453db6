"""Named API keys: `ocgw_<id>_<secret>`, of which only a digest is stored.

The secret has 256 random bits, so that a plain SHA-256 cannot be reversed. What a row says is in force everywhere at
once: a process relies on what it has read for at most `FRESH_SECONDS`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import orjson
import sqlalchemy as sa

from service.core.budgets import Budget, parse_budget
from service.core.concurrency import spawn
from service.core.dataclass import record, replace
from service.core.principal import Principal, Scope, closure_of
from service.core.rate_limits import NO_LIMITS, RateLimits
from service.storage.database.caller_schema import api_keys
from service.storage.database.database import Database, SingleOperation
from service.storage.database.errors import StoreError

#: How long a row that was read is relied on.
FRESH_SECONDS = 0.4

#: A key's last use is stored this often.
USE_SECONDS = 60.0

_KEY = re.compile(rb"ocgw_([0-9a-z]{12})_[0-9A-Za-z]{43}")
_ID_CHARACTERS = string.digits + string.ascii_lowercase
_SECRET_CHARACTERS = string.digits + string.ascii_letters
_ID_LENGTH, _SECRET_LENGTH = 12, 43
_MAX_CACHED = 10_000
_NO_DIGEST = "0" * 64

_BY_IDS = sa.select(api_keys).where(api_keys.c.id.in_(sa.bindparam("ids", expanding=True)))
_ALL = sa.select(api_keys).order_by(api_keys.c.created_at_ms, api_keys.c.id)


@record
class ApiKey:
    """A named key; times in ms since the epoch.

    `digest` is that of the key in force, `old_digest` that of the one it replaced, valid until `old_until_ms`.
    `agents` and `models` are those that it may use, `None` for all.
    """

    id: str
    name: str
    digest: str = field(repr=False)
    scopes: tuple[Scope, ...]
    agents: tuple[str, ...] | None
    models: tuple[str, ...] | None
    created_at_ms: int
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    last_used_at_ms: int | None = None
    old_digest: str | None = field(default=None, repr=False)
    old_until_ms: int | None = None
    limits: RateLimits = NO_LIMITS
    budget: Budget | None = None

    def state_at(self, now_ms: int) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked_at_ms is not None:
            return "revoked"
        return "expired" if self.expires_at_ms is not None and self.expires_at_ms <= now_ms else "active"

    def to_principal(self) -> Principal:
        """Return the caller with this key."""
        scopes = closure_of(self.scopes)
        owner = None if Scope.ADMIN in scopes else f"key:{self.id}"
        return Principal(
            *(owner, self.id, self.name, scopes, self.agents, self.models, self.limits),
            budget=self.budget,
            key_digest=self.digest,
        )

    def accepts(self, digest: str, now_ms: int) -> bool:
        """Return True if `digest` is that of the key in force, or of the one before in its time of grace."""
        # Both comparisons are always made, so that wrong and replaced keys take the same time.
        is_current = hmac.compare_digest(digest, self.digest)
        is_old = hmac.compare_digest(digest, self.old_digest or _NO_DIGEST) and (self.old_until_ms or 0) > now_ms
        return (is_current or is_old) and self.state_at(now_ms) == "active"


#: Compared with where there is no key, so that unknown ones take as long as wrong ones.
_UNKNOWN = ApiKey("", "", _NO_DIGEST, (), None, None, 0)


def new_key(key_id: str | None = None) -> tuple[str, str, str]:
    """Return a new key with its id and its digest; `key_id` is that of a key to replace."""
    key_id = key_id or "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
    secret = "".join(secrets.choice(_SECRET_CHARACTERS) for _ in range(_SECRET_LENGTH))
    text = f"ocgw_{key_id}_{secret}"
    return text, key_id, _digest(text.encode())


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


@dataclass(slots=True, eq=False)
class _Known:
    """A key as it was read, and when; `used_at` is when its last use was stored."""

    key: ApiKey | None
    read_at: float
    principal: Principal | None
    used_at: float = -USE_SECONDS


class ApiKeys:
    """The keys of all gateways that share a database. `clock` returns seconds since 1970. Methods may block.

    All raise `StoreError`.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def authenticate(self, key: bytes) -> Principal | None:
        """Return the caller with `key`, `None` for one that is unknown, wrong, expired or revoked."""
        parts = _KEY.fullmatch(key)
        if parts is None:
            return None
        known = self._look_up(parts[1].decode())
        digest, now_ms = _digest(key), int(self._clock() * 1000)
        is_accepted = (known.key or _UNKNOWN).accepts(digest, now_ms)
        if known.key is None or known.principal is None or not is_accepted:
            return None
        self._note_use(known, known.key.id, now_ms)
        return known.principal if digest == known.key.digest else replace(known.principal, key_digest=digest)

    def renew(self, principal: Principal) -> Principal | None:
        """Return a caller that was accepted before with what its key may do now, `None` if it is not valid."""
        known = self._look_up(principal.key_id or "")
        if known.key is None or known.principal is None:
            return None
        is_accepted = known.key.accepts(principal.key_digest, int(self._clock() * 1000))
        return replace(known.principal, key_digest=principal.key_digest) if is_accepted else None

    def _look_up(self, key_id: str) -> _Known:
        known, now = self._known.get(key_id), monotonic()
        if known is not None and now < known.read_at + FRESH_SECONDS:
            return known
        rows = self._database.fetch(_BY_IDS, {"ids": [key_id]})
        key = _to_key(rows[0]) if rows else None
        fresh = _Known(key, now, None if key is None else key.to_principal())
        if known is not None:
            fresh.used_at = known.used_at
        self._known[key_id] = fresh
        self._known.move_to_end(key_id)
        if len(self._known) > _MAX_CACHED:
            self._known.popitem(last=False)
        return fresh

    def _note_use(self, known: _Known, key_id: str, now_ms: int) -> None:
        if monotonic() >= known.used_at + USE_SECONDS:
            known.used_at = monotonic()
            spawn(self._store_use, key_id, now_ms)

    def _store_use(self, key_id: str, now_ms: int) -> None:
        with suppress(StoreError):  # logged; the next use is stored
            self._database.write(_Change(key_id, {"last_used_at_ms": now_ms}))

    def list(self) -> tuple[ApiKey, ...]:
        """Return all keys, oldest first."""
        return tuple(map(_to_key, self._database.fetch(_ALL, {})))

    def create(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        agents: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        expires_at_ms: int | None = None,
        limits: RateLimits = NO_LIMITS,
        budget: Budget | None = None,
    ) -> tuple[ApiKey, str]:
        """Store a new key; return it with its text, which cannot be read again."""
        text, key_id, digest = new_key()
        key = ApiKey(
            key_id,
            name,
            digest,
            tuple(scopes),
            None if agents is None else tuple(agents),
            None if models is None else tuple(models),
            int(self._clock() * 1000),
            expires_at_ms,
            limits=limits,
            budget=budget,
        )
        self._database.write(_Add(key))
        return key, text

    def rotate(self, key_id: str, grace_seconds: float) -> str:
        """Replace a key; the old one is valid for `grace_seconds` more. Return the text of the new one."""
        text, _, digest = new_key(key_id)
        until_ms = int((self._clock() + grace_seconds) * 1000)
        changes = {"old_digest": api_keys.c.digest, "old_until_ms": until_ms, "digest": digest}
        self._database.write(_Change(key_id, changes))
        return text

    def set_limits(self, key_id: str, limits: RateLimits) -> None:
        """Change the limits of a key."""
        self._database.write(_Change(key_id, _to_limit_row(limits)))

    def set_budget(self, key_id: str, budget: Budget | None) -> None:
        """Change the budget of a key."""
        self._database.write(_Change(key_id, {"budget": None if budget is None else str(budget)}))

    def revoke(self, key_id: str) -> None:
        """End a key for good."""
        self._database.write(_Change(key_id, {"revoked_at_ms": int(self._clock() * 1000)}))


@dataclass(slots=True, eq=False)
class _Add(SingleOperation[None]):
    key: ApiKey

    def apply(self, connection: sa.Connection) -> None:
        known = connection.execute(sa.select(api_keys.c.id).where(api_keys.c.id == self.key.id)).first()
        if known is None:  # else an earlier attempt was committed without an acknowledgement
            connection.execute(api_keys.insert().values(_to_row(self.key)))


@dataclass(slots=True, eq=False)
class _Change(SingleOperation[None]):
    key_id: str
    values: dict[str, Any]

    def apply(self, connection: sa.Connection) -> None:
        changed = api_keys.update().where(api_keys.c.id == self.key_id)
        if "digest" in self.values:  # of an earlier attempt, which was committed without an acknowledgement
            changed = changed.where(api_keys.c.digest != self.values["digest"])
        connection.execute(changed.values(self.values))


def _to_row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "digest": key.digest,
        "scopes": _to_json(key.scopes),
        "agents": _to_json(key.agents),
        "models": _to_json(key.models),
        "created_at_ms": key.created_at_ms,
        "expires_at_ms": key.expires_at_ms,
        **_to_limit_row(key.limits),
        "budget": None if key.budget is None else str(key.budget),
    }


def _to_limit_row(limits: RateLimits) -> dict[str, Any]:
    return dict(zip(("rpm", "tpm", "concurrent"), limits.to_tuple(), strict=True))


def _to_json(names: Iterable[str] | None) -> str | None:
    return None if names is None else orjson.dumps(list(names)).decode()


def _to_key(row: sa.Row[Any]) -> ApiKey:
    agents, models = (None if text is None else tuple(orjson.loads(text)) for text in (row.agents, row.models))
    return ApiKey(
        row.id,
        row.name,
        row.digest,
        tuple(map(Scope, orjson.loads(row.scopes))),
        agents,
        models,
        row.created_at_ms,
        row.expires_at_ms,
        row.revoked_at_ms,
        row.last_used_at_ms,
        row.old_digest,
        row.old_until_ms,
        RateLimits(row.rpm, row.tpm, row.concurrent) or NO_LIMITS,
        None if row.budget is None else parse_budget(row.budget),
    )
