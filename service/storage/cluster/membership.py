"""Membership of the gateways that share a database, and eviction of dead ones.

Each gateway increments the heartbeat counter of its row. A gateway whose counter stops is evicted by any other: its
runs are marked as interrupted and its sessions are released, so that a gateway that was only paused cannot write in
them when it resumes. Its pending approvals stay for the next run that asks about the same call. Heartbeats are counted,
not timed, so clocks are never compared. The gateway that evicts another reports the ends of its runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import sqlalchemy as sa

from service.core.concurrency import Event, RLock, spawn
from service.core.messages import Usage
from service.core.processes.identity import ProcessIdentity, is_dead, this_process
from service.core.signals import RunFinished, run_finished
from service.storage.database.database import Database, SingleOperation
from service.storage.database.errors import StoreError
from service.storage.database.notify import gateway_topic, notify_change, session_topic
from service.storage.database.schema import approvals, gateways, lanes, runs

#: Interval of heartbeats, and the number of checks without a new one after which a gateway counts as dead: 15 seconds.
#: A process on the same host is checked directly, so that its death is noticed at the next check.
HEARTBEAT_SECONDS = 3.0
MISSED_HEARTBEATS = 5

#: Polling interval for requests of other gateways, where there are no notifications.
_POLL_SECONDS = 0.5

ACTIVE_STATES = ("accepted", "running")

#: Condition for runs in these states. Literals, because no database uses a partial index for parameters.
IS_ACTIVE = runs.c.state.in_([sa.literal_column(f"'{state}'") for state in ACTIVE_STATES])

#: State of an approval that nobody has decided, and of one that nobody decided in time.
PENDING = "pending"
EXPIRED = "expired"

#: The gateway of an approval whose own gateway is gone.
NO_GATEWAY = ""

_log = logging.getLogger("openclaw.storage")

_OTHERS = sa.select(gateways).where(gateways.c.id != sa.bindparam("own_id"))
_ORPHANED = IS_ACTIVE, runs.c.gateway_id.not_in(sa.select(gateways.c.id))
_ORPHANED_APPROVAL = (
    approvals.c.state == PENDING,
    approvals.c.gateway_id != NO_GATEWAY,
    approvals.c.gateway_id.not_in(sa.select(gateways.c.id)),
)
_EXPIRED_APPROVAL = (
    approvals.c.state == PENDING,
    approvals.c.gateway_id == NO_GATEWAY,
    approvals.c.expires_at_ms <= sa.bindparam("now_ms"),
)
_ANY_ORPHAN = sa.select(sa.literal(1)).where(
    sa.or_(*(sa.exists().where(*kind) for kind in (_ORPHANED, _ORPHANED_APPROVAL, _EXPIRED_APPROVAL)))
)


@dataclass(slots=True, eq=False)
class _Join(SingleOperation[None]):
    row: dict[str, Any]

    def apply(self, connection: sa.Connection) -> None:
        known = connection.execute(sa.select(gateways.c.id).where(gateways.c.id == self.row["id"])).first()
        if known is None:
            connection.execute(gateways.insert(), self.row)


@dataclass(slots=True, eq=False)
class _Heartbeat(SingleOperation[bool]):
    """Increment the heartbeat; returns whether the gateway is still a member."""

    gateway_id: str

    def apply(self, connection: sa.Connection) -> bool:
        beat = gateways.update().where(gateways.c.id == self.gateway_id).values(beat=gateways.c.beat + 1)
        return connection.execute(beat).rowcount == 1


@dataclass(slots=True, eq=False)
class _Evict(SingleOperation[Sequence[sa.Row[Any]] | None]):
    """Remove a gateway unless its heartbeat has changed; returns its active runs, `None` if it was not removed."""

    gateway_id: str
    beat: int | None
    at_ms: int

    def apply(self, connection: sa.Connection) -> Sequence[sa.Row[Any]] | None:
        remove = gateways.delete().where(gateways.c.id == self.gateway_id)
        if self.beat is not None:
            remove = remove.where(gateways.c.beat == self.beat)
        if connection.execute(remove).rowcount == 0:
            return None
        # Leases before runs, in the order in which a finishing run locks them.
        held = sa.select(lanes.c.session_key).where(lanes.c.gateway_id == self.gateway_id)
        for key in connection.execute(held.order_by(lanes.c.session_key).with_for_update()).scalars().all():
            freed = lanes.update().where(lanes.c.session_key == key, lanes.c.gateway_id == self.gateway_id)
            connection.execute(freed.values(run_id=None, gateway_id=None, fence=lanes.c.fence + 1))
            notify_change(connection, session_topic(key))
        connection.execute(lanes.update().where(lanes.c.wanted_by == self.gateway_id).values(wanted_by=None))
        active = runs.c.gateway_id == self.gateway_id, IS_ACTIVE
        end = runs.update().where(*active).values(state="interrupted", ended_at_ms=self.at_ms)
        interrupted = connection.execute(end.returning(runs)).all()
        pending = approvals.c.gateway_id == self.gateway_id, approvals.c.state == PENDING
        connection.execute(approvals.update().where(*pending).values(gateway_id=NO_GATEWAY))
        return interrupted


@dataclass(slots=True, eq=False)
class _EndOrphans(SingleOperation[None]):
    """Interrupt runs of removed gateways, which a paused one may add before it notices its eviction.

    Their approvals stay pending until they expire.
    """

    at_ms: int

    def apply(self, connection: sa.Connection) -> None:
        connection.execute(runs.update().where(*_ORPHANED).values(state="interrupted", ended_at_ms=self.at_ms))
        connection.execute(approvals.update().where(*_ORPHANED_APPROVAL).values(gateway_id=NO_GATEWAY))
        expired = approvals.update().where(*_EXPIRED_APPROVAL).values(state=EXPIRED, decided_at_ms=self.at_ms)
        connection.execute(expired, {"now_ms": self.at_ms})


class Membership:
    """This gateway's membership among those that share `database`.

    `id` is set by `join` and changes when others evict this gateway: `on_evicted` is called then, and the runs of the
    old id are lost. `on_poll` is called periodically, and soon after a notification of the gateway's topic. Both must
    return quickly.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.id = ""
        self.on_evicted: Callable[[], None] = lambda: None
        self.on_poll: Callable[[], None] = lambda: None
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._heartbeat_seconds = heartbeat_seconds
        self._rejoining = RLock()
        self._seen: dict[str, tuple[int, int]] = {}  # id -> last heartbeat, number of checks without a new one
        self._interrupted: list[RunFinished] = []  # and not reported yet
        self._reports = False
        self._evicts = True
        self._left = Event()
        self._left.set()

    def join(self, *, evicts: bool = True) -> None:
        """Become a member, one that `evicts` dead gateways or leaves that to others. Raises `StoreError`."""
        self._evicts = evicts
        self._register()
        self._check_peers()
        self._left.clear()
        spawn(self._send_heartbeats)

    def report_interrupted(self) -> None:
        """Emit `run_finished` for the runs of gateways that were found dead so far, and from now on at once.

        It is called when everything that counts runs has connected, which is after `join`.
        """
        self._reports = True
        ended, self._interrupted = self._interrupted, []
        for one in ended:
            run_finished.emit(one)

    def rejoin(self, lost_id: str) -> None:
        """Become a member again after the eviction of `lost_id`, unless already done. Raises `StoreError`."""
        with self._rejoining:
            if self._left.is_set():
                raise StoreError("The gateway has left the cluster.")
            if self.id != lost_id:
                return
            _log.warning("gateway %s was evicted by another gateway; rejoining with a new id", lost_id)
            self._register()
            self.on_evicted()

    def leave(self) -> None:
        """Leave; active runs are marked as interrupted. A no-op before `join` and after the first call."""
        if self._left.is_set():
            return
        self._left.set()
        self.report_interrupted()
        try:
            self._database.write(_Evict(self.id, None, self._now_ms()))
        except StoreError as error:
            _log.warning("the gateway could not deregister: %s", error)

    def _register(self) -> None:
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

    def _send_heartbeats(self) -> None:
        next_beat = monotonic() + self._heartbeat_seconds
        while not self._left.is_set():
            self._pause(min(_POLL_SECONDS, self._heartbeat_seconds))
            if self._left.is_set():
                return
            try:
                if monotonic() >= next_beat:
                    next_beat = monotonic() + self._heartbeat_seconds
                    self._heartbeat()
                self.on_poll()
            except StoreError as error:
                _log.warning("heartbeat failed: %s", error)

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        if len(self._seen) == 0:  # no other gateways: no requests
            self._left.wait(seconds)
            return
        self._database.wait_for_change(gateway_topic(self.id), seconds)
        # Without notifications the wait is a short polling interval; this one may be longer.
        if not self._database.pushes_changes:
            self._left.wait(max(0.0, until - monotonic()))

    def _heartbeat(self) -> None:
        own_id = self.id
        if not self._database.write(_Heartbeat(own_id)) and not self._left.is_set():
            self.rejoin(own_id)
        self._check_peers()

    def _check_peers(self) -> None:
        if not self._evicts:
            return
        seen: dict[str, tuple[int, int]] = {}
        for row in self._database.fetch(_OTHERS, {"own_id": self.id}):
            beat, misses = self._seen.get(row.id, (row.beat, 0))
            misses = misses + 1 if beat == row.beat else 0
            if is_dead(ProcessIdentity(row.host, row.pid, row.process_start)) or misses >= MISSED_HEARTBEATS:
                interrupted = self._database.write(_Evict(row.id, row.beat, self._now_ms()))
                if interrupted is not None:
                    _log.warning("gateway %s (process %d) is dead; its sessions were released", row.id, row.pid)
                    self._interrupted.extend(map(_to_finished, interrupted))
            else:
                seen[row.id] = (row.beat, misses)
        self._seen = seen
        if self._database.fetch(_ANY_ORPHAN, {"now_ms": self._now_ms()}):
            self._database.write(_EndOrphans(self._now_ms()))
        if self._reports:
            self.report_interrupted()

    @property
    def has_peers(self) -> bool:
        """True if other gateways were alive at the last check."""
        return bool(self._seen)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _to_finished(row: sa.Row[Any]) -> RunFinished:
    """Return the end of an interrupted run, as far as its row has it."""
    begun_at_ms = row.ended_at_ms if row.started_at_ms is None else row.started_at_ms
    first_output_ms = None if row.first_output_at_ms is None else row.first_output_at_ms - row.accepted_at_ms
    return RunFinished(
        run_id=row.id,
        session_key=row.session_key,
        key_id=None,
        request_id=None,
        agent=row.agent_id,
        protocol=row.door,
        model=row.model,
        outcome="run_interrupted",
        queued_seconds=max(begun_at_ms - row.accepted_at_ms, 0) / 1000,
        seconds=None if row.started_at_ms is None else max(row.ended_at_ms - begun_at_ms, 0) / 1000,
        first_output_seconds=None if first_output_ms is None else first_output_ms / 1000,
        usage=Usage(cost_nano=None),
        model_calls=row.step or 0,
        has_begun=row.started_at_ms is not None,
        reason="The gateway that executed this run has died.",
    )
