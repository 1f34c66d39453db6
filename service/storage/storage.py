"""All that the Gateway keeps, in one place: transcripts, the book of runs, idempotency keys, who shares them."""

from __future__ import annotations

from collections.abc import Callable

from service.config.sessions import MaintenanceConfig
from service.storage.cluster.membership import BEAT_SECONDS, Membership
from service.storage.database.database import Database
from service.storage.runs.idempotency import Claims
from service.storage.runs.ledger import RunLedger
from service.storage.runs.records import RunRecords
from service.storage.sessions.pruning import Maintenance
from service.storage.sessions.transcripts import SessionStore


class Storage:
    """What is kept in `database`.

    `clock` gives seconds since 1970, `new_id` ids that nobody has; `beat_seconds` is how often it shows that it lives.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self.database = database
        self.membership = Membership(database, clock=clock, new_id=new_id, beat_seconds=beat_seconds)
        self.store = SessionStore(database)
        self.records = RunRecords(database)
        self.claims = Claims(database)
        self.ledger = RunLedger(database, self.membership, clock=clock, new_id=new_id)
        self._clock = clock
        self._maintenance: Maintenance | None = None

    def maintain(self, config: MaintenanceConfig) -> None:
        """Delete what `config` does not keep, in the background until `close` or until another one is given."""
        if self._maintenance is not None:
            self._maintenance.stop()
        self._maintenance = Maintenance(self.database, config, self._clock)
        self._maintenance.start()

    def close(self) -> None:
        """Finish what waits, say goodbye to the others and let go of the database. Twice is a no-op."""
        if self._maintenance is not None:
            self._maintenance.stop()
        self.ledger.close()
        self.membership.leave()
        self.database.close()
