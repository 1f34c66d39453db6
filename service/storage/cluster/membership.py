"""Which gateways share the database, and what becomes of one that has died.

Each gateway's row has a beat that grows while it lives. Whoever sees a beat stand still buries its gateway: the runs it
had going are interrupted and its sessions free for others, and a gateway that was only paused finds, when it wakes up,
that it can no longer write in them. Nothing here compares clocks: beats are counted, not timed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import sqlalchemy as sa

from service.core.concurrency import Event, RLock, spawn
from service.core.processes.identity import ProcessIdentity, is_dead, this_process
from service.storage.database.database import Database, SingleOperation
from service.storage.database.errors import StoreError
from service.storage.database.notify import gateway_topic, lane_topic, tell_change
from service.storage.database.schema import gateways, lanes, runs

#: How often a gateway shows that it lives, and after how many looks at a beat that stands still it counts as dead:
#: 15 seconds. Where the other's process can be looked at, its death shows at the next look.
BEAT_SECONDS = 3.0
LOOKS_UNTIL_DEAD = 5

#: How often a gateway looks whether others want something of it, where they cannot tell.
_LOOK_SECONDS = 0.5

GOING_ON = ("accepted", "running")

_log = logging.getLogger("openclaw.state")

_OTHERS = sa.select(gateways).where(gateways.c.id != sa.bindparam("own_id"))
_ORPHANED = runs.c.state.in_(GOING_ON), runs.c.gateway_id.not_in(sa.select(gateways.c.id))
_AN_ORPHAN = sa.select(runs.c.id).where(*_ORPHANED).limit(1)


@dataclass(slots=True, eq=False)
class _Join(SingleOperation[None]):
    row: dict[str, Any]

    def apply(self, connection: sa.Connection) -> None:
        known = connection.execute(sa.select(gateways.c.id).where(gateways.c.id == self.row["id"])).first()
        if known is None:
            connection.execute(gateways.insert(), self.row)


@dataclass(slots=True, eq=False)
class _Beat(SingleOperation[bool]):
    """Whether the gateway is still a member."""

    gateway_id: str

    def apply(self, connection: sa.Connection) -> bool:
        beat = gateways.update().where(gateways.c.id == self.gateway_id).values(beat=gateways.c.beat + 1)
        return connection.execute(beat).rowcount == 1


@dataclass(slots=True, eq=False)
class _Bury(SingleOperation[bool]):
    """Take a gateway off the list, unless its beat is another by now; whether it was taken off."""

    gateway_id: str
    beat: int | None
    at_ms: int

    def apply(self, connection: sa.Connection) -> bool:
        remove = gateways.delete().where(gateways.c.id == self.gateway_id)
        if self.beat is not None:
            remove = remove.where(gateways.c.beat == self.beat)
        if connection.execute(remove).rowcount == 0:
            return False
        # Lanes before runs, as whoever ends a run takes them.
        held = sa.select(lanes.c.session_key).where(lanes.c.gateway_id == self.gateway_id)
        for key in connection.execute(held.order_by(lanes.c.session_key).with_for_update()).scalars().all():
            freed = lanes.update().where(lanes.c.session_key == key, lanes.c.gateway_id == self.gateway_id)
            connection.execute(freed.values(run_id=None, gateway_id=None, fence=lanes.c.fence + 1))
            tell_change(connection, lane_topic(key))
        connection.execute(lanes.update().where(lanes.c.wanted_by == self.gateway_id).values(wanted_by=None))
        going_on = runs.c.gateway_id == self.gateway_id, runs.c.state.in_(GOING_ON)
        connection.execute(runs.update().where(*going_on).values(state="interrupted", ended_at_ms=self.at_ms))
        return True


@dataclass(slots=True, eq=False)
class _InterruptOrphans(SingleOperation[None]):
    """End the runs of gateways that are on the list no more: one that was paused may accept some before it notices."""

    at_ms: int

    def apply(self, connection: sa.Connection) -> None:
        connection.execute(runs.update().where(*_ORPHANED).values(state="interrupted", ended_at_ms=self.at_ms))


class Membership:
    """This gateway among those that share `database`.

    `id` names it, from `join` on, and changes if others took it for dead: `on_expelled` is called then, and the runs
    of the old id are lost. `on_look` is called now and then, soon after somebody told the gateway's topic, when there
    may be something to look for. Both must be quick or do their work elsewhere.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self.id = ""
        self.on_expelled: Callable[[], None] = lambda: None
        self.on_look: Callable[[], None] = lambda: None
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._beat_seconds = beat_seconds
        self._rejoining = RLock()
        self._seen: dict[str, tuple[int, int]] = {}  # another's id -> its beat, and how often it was seen
        self._left = Event()
        self._left.set()

    def join(self) -> None:
        """Become a member, and bury those of whom it is certain that they died. Raises `StoreError`."""
        self._enlist()
        self._look_at_others()
        self._left.clear()
        spawn(self._live)

    def rejoin(self, lost_id: str) -> None:
        """Become a member again after others took `lost_id` for dead, unless that is done. Raises `StoreError`."""
        with self._rejoining:
            if self._left.is_set():
                raise StoreError("The gateway has left those that share its database.")
            if self.id != lost_id:
                return
            _log.warning("gateway %s was taken for dead by others; it goes on under a new name", lost_id)
            self._enlist()
            self.on_expelled()

    def leave(self) -> None:
        """Be a member no more; what still runs counts as interrupted. After this a no-op, before `join` too."""
        if self._left.is_set():
            return
        self._left.set()
        try:
            self._database.write(_Bury(self.id, None, self._now_ms()))
        except StoreError as error:
            _log.warning("the gateway could not say that it leaves: %s", error)

    def _enlist(self) -> None:
        process, gateway_id = this_process(), self._new_id()
        row = {
            "id": gateway_id,
            "host": process.host,
            "pid": process.pid,
            "process_start": process.start,
            "beat": 0,
            "started_at_ms": self._now_ms(),
        }
        self._database.write(_Join(row))
        self.id = gateway_id

    def _live(self) -> None:
        beat_at = monotonic() + self._beat_seconds
        while not self._left.is_set():
            self._pause(min(_LOOK_SECONDS, self._beat_seconds))
            if self._left.is_set():
                return
            try:
                if monotonic() >= beat_at:
                    beat_at = monotonic() + self._beat_seconds
                    self._beat()
                self.on_look()
            except StoreError as error:
                _log.warning("the gateway could not show that it lives: %s", error)

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        if len(self._seen) == 0:  # alone: nobody can want anything
            self._left.wait(seconds)
            return
        self._database.wait_change(gateway_topic(self.id), seconds)
        # Where changes are polled for, the wait is shorter; there is no hurry here.
        if not self._database.tells_changes:
            self._left.wait(max(0.0, until - monotonic()))

    def _beat(self) -> None:
        own_id = self.id
        if not self._database.write(_Beat(own_id)) and not self._left.is_set():
            self.rejoin(own_id)
        self._look_at_others()

    def _look_at_others(self) -> None:
        seen: dict[str, tuple[int, int]] = {}
        for row in self._database.fetch(_OTHERS, {"own_id": self.id}):
            beat, looks = self._seen.get(row.id, (row.beat, 0))
            looks = looks + 1 if beat == row.beat else 0
            if is_dead(ProcessIdentity(row.host, row.pid, row.process_start)) or looks >= LOOKS_UNTIL_DEAD:
                if self._database.write(_Bury(row.id, row.beat, self._now_ms())):
                    _log.warning("gateway %s (process %d) has died; its sessions are free", row.id, row.pid)
            else:
                seen[row.id] = (row.beat, looks)
        self._seen = seen
        if self._database.fetch(_AN_ORPHAN, {}):
            self._database.write(_InterruptOrphans(self._now_ms()))

    @property
    def has_others(self) -> bool:
        """Whether other gateways were up at the last look."""
        return bool(self._seen)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
