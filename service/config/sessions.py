"""The configuration of sessions: for how long they are kept."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from service.config.problems import Section
from service.config.types import Positive, Span

_DAY_SECONDS = 24 * 60 * 60


def _or_none(value: object) -> object:
    return None if value is False else value


class MaintenanceConfig(Section):
    """What is deleted, and when; nothing that a caller named unless it says so here.

    Sessions by the time since they were last used (`prune_after`; `stateless_after` for those of requests that stood
    alone) and beyond the `max_entries` last used of each agent; what is recorded of a run by the time since its end
    (`runs_after`). Spans are seconds, `None` is for ever. With `mode` "warn" the log tells what would be deleted.
    """

    openclaw_only: ClassVar[frozenset[str]] = frozenset(
        {"archiveDashboardAfter", "resetArchiveRetention", "maxDiskBytes", "highWaterBytes", "rotateBytes", "pruneDays"}
    )

    mode: Literal["enforce", "warn"] = "enforce"
    prune_after: Span = None
    max_entries: Annotated[Positive | None, BeforeValidator(_or_none)] = None
    stateless_after: Span = 7 * _DAY_SECONDS
    runs_after: Span = 30 * _DAY_SECONDS


class SessionConfig(Section):
    """Sessions."""

    maintenance: MaintenanceConfig = MaintenanceConfig()
