"""Runs of other gateways, in the order in which they were accepted."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from service.storage.cluster.membership import IS_ACTIVE
from service.storage.database.database import Database
from service.storage.database.schema import runs
from service.storage.runs.records import WITH_WAIT, RunRecord, to_record

#: How many are looked at in one call.
PAGE = 200

_SINCE = (
    WITH_WAIT.where(runs.c.accepted_at_ms >= sa.bindparam("since_ms"), runs.c.gateway_id != sa.bindparam("own_id"))
    .order_by(runs.c.accepted_at_ms.desc(), runs.c.id.desc())
    .limit(PAGE)
)
_ACTIVE = WITH_WAIT.where(IS_ACTIVE, runs.c.gateway_id != sa.bindparam("own_id"))
_BY_IDS = WITH_WAIT.where(runs.c.id.in_(sa.bindparam("run_ids", expanding=True)))


def list_peer_runs(database: Database, own_id: str, since_ms: int) -> list[RunRecord]:
    """Return the latest runs of other gateways that were accepted since `since_ms`. Raises `StoreError`."""
    return [to_record(row) for row in database.fetch(_SINCE, {"own_id": own_id, "since_ms": since_ms})]


def list_active_peer_runs(database: Database, own_id: str) -> list[RunRecord]:
    """Return the queued and running runs of other gateways. Raises `StoreError`."""
    return [to_record(row) for row in database.fetch(_ACTIVE, {"own_id": own_id})]


def get_runs(database: Database, run_ids: Collection[str]) -> list[RunRecord]:
    """Return the records of runs, as far as there are any. Raises `StoreError`."""
    return [to_record(row) for row in database.fetch(_BY_IDS, {"run_ids": list(run_ids)})] if run_ids else []
