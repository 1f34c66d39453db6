"""API keys of a live gateway, written to its database as `openclaw keys` does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from service.core.principal import Scope
from service.core.rate_limits import NO_LIMITS, RateLimits
from service.storage.api_keys import ApiKeys
from service.storage.database.open import open_database


@contextmanager
def open_keys(state_dir: Path, url: str | None = None) -> Iterator[ApiKeys]:
    """Open the keys in the database at `url`, or that of `state_dir`."""
    with closing(open_database(url, state_dir)) as database:
        yield ApiKeys(database, time.time)


def create_key(
    state_dir: Path,
    scope: str = "write",
    *,
    agents: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    expires_in: float | None = None,
    limits: RateLimits = NO_LIMITS,
    url: str | None = None,
) -> tuple[str, str]:
    """Create a key and return its text and its id."""
    expires_at_ms = None if expires_in is None else int((time.time() + expires_in) * 1000)
    with open_keys(state_dir, url) as keys:
        key, text = keys.create(
            f"key of {scope}",
            [Scope(scope)],
            agents=agents,
            models=models,
            expires_at_ms=expires_at_ms,
            limits=limits,
        )
    return text, key.id
