"""Entry point to the persistent state: transcripts, runs, usage, approvals, keys, gateway membership."""

from __future__ import annotations

from collections.abc import Callable

from service.config.sessions import MaintenanceConfig
from service.storage.api_keys import ApiKeys
from service.storage.cluster.membership import HEARTBEAT_SECONDS, Membership
from service.storage.database.database import Database
from service.storage.limits.counters import LimitCounters
from service.storage.runs.approvals import Approvals
from service.storage.runs.events import RunEvents
from service.storage.runs.idempotency import IdempotencyStore
from service.storage.runs.kept_answers import KeptAnswers
from service.storage.runs.ledger import RunLedger
from service.storage.runs.records import RunRecords
from service.storage.runs.webhooks import Webhooks
from service.storage.sessions.pruning import Pruner
from service.storage.sessions.transcripts import TranscriptStore
from service.storage.usage import DailyUsage


class Storage:
    """The state in `database`.

    `clock` returns seconds since 1970, `new_id` unique ids; `heartbeat_seconds` is the heartbeat interval.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.database = database
        self.membership = Membership(database, clock=clock, new_id=new_id, heartbeat_seconds=heartbeat_seconds)
        self.transcripts = TranscriptStore(database)
        self.records = RunRecords(database)
        self.run_events = RunEvents(database)
        self.webhooks = Webhooks(database)
        self.claims = IdempotencyStore(database)
        self.kept_answers = KeptAnswers(database)
        self.api_keys = ApiKeys(database, clock)
        self.limit_usage = LimitCounters(database)
        self.usage = DailyUsage(database)
        self.approvals = Approvals(database, self.membership, clock)
        self.ledger = RunLedger(database, self.membership, clock=clock, new_id=new_id)
        self._clock = clock
        self._pruner: Pruner | None = None
        self.runs_kept_seconds: int | None = None

    def maintain(self, config: MaintenanceConfig) -> None:
        """Prune according to `config` in the background, until `close` or the next call."""
        if self._pruner is not None:
            self._pruner.stop()
        self.runs_kept_seconds = config.runs_after
        self._pruner = Pruner(self.database, config, self._clock)
        self._pruner.start()

    def close(self) -> None:
        """Commit pending writes, leave the cluster and close the database. A second call is a no-op."""
        if self._pruner is not None:
            self._pruner.stop()
        self.ledger.close()
        self.membership.leave()
        self.database.close()
