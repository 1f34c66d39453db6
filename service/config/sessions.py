"""The configuration's section on sessions: how long they are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from service.config.problems import Section
from service.config.types import Positive, Span

_DAY_SECONDS = 24 * 60 * 60


def _or_none(value: object) -> object:
    return None if value is False else value


class MaintenanceConfig(Section):
    """Deletion of old sessions and runs. Times are such as "30d" or "12h"; `false` is never."""

    mode: Literal["enforce", "warn"] = "enforce"
    """"warn" logs what would be deleted, and deletes nothing."""
    prune_after: Span = None
    """Time since its last use after which a named session is deleted."""
    max_entries: Annotated[Positive | None, BeforeValidator(_or_none)] = None
    """Sessions to keep of each agent, the last used first."""
    stateless_after: Span = 7 * _DAY_SECONDS
    """Time since its last use after which the session of a request without a session key or user is deleted."""
    runs_after: Span = 30 * _DAY_SECONDS
    """Time since its end after which the record of a run is deleted."""


class SessionConfig(Section):
    """Sessions."""

    maintenance: MaintenanceConfig = MaintenanceConfig()
    """Deletion of old sessions and runs."""
