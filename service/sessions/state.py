"""All that the Gateway keeps, in one place: transcripts, the book of runs, idempotency keys, who shares them."""

from __future__ import annotations

from collections.abc import Callable

from service.sessions.claims import Claims
from service.sessions.ledger import RunLedger
from service.sessions.records import RunRecords
from service.sessions.store import SessionStore
from service.state.database import Database
from service.state.membership import Membership


class State:
    """What is kept in `database`. `clock` gives seconds since 1970, `new_id` ids that nobody has."""

    def __init__(self, database: Database, *, clock: Callable[[], float], new_id: Callable[[], str]) -> None:
        self.database = database
        self.membership = Membership(database, clock=clock, new_id=new_id)
        self.store = SessionStore(database)
        self.records = RunRecords(database)
        self.claims = Claims(database)
        self.ledger = RunLedger(database, self.membership, clock=clock, new_id=new_id)

    def close(self) -> None:
        """Finish what waits, say goodbye to the others and let go of the database. Twice is a no-op."""
        self.ledger.close()
        self.membership.leave()
        self.database.close()
