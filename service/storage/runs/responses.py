"""Deletion of stored responses."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from service.storage.database.database import SingleOperation
from service.storage.database.schema import runs
from service.storage.sessions.transcripts import delete_session


@dataclass(slots=True, eq=False)
class DeleteResponse(SingleOperation[None]):
    """Delete what makes a run a response. With `session_key` the session goes with the last of its responses."""

    run_id: str
    session_key: str | None

    def apply(self, connection: sa.Connection) -> None:
        """See `SingleOperation`."""
        connection.execute(runs.update().where(runs.c.id == self.run_id).values(response=None))
        if self.session_key is None:
            return
        left = sa.select(runs.c.id).where(runs.c.session_key == self.session_key, runs.c.response.is_not(None)).limit(1)
        if connection.execute(left).first() is None:
            delete_session(connection, self.session_key)
