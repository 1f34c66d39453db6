"""Approvals: tool calls that wait for a person's decision, as rows that every gateway can decide.

The gateway that executes the run waits; it notices decisions of other processes when it looks for its requests
(`Membership.on_poll`), at once where the database has notifications. An approval is closed exactly once.

If that gateway dies or stops, its pending approvals can be decided until they expire. The next run of the session that
asks about the same call takes over such an approval, with the decision if there is one, instead of asking again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from time import monotonic
from typing import Any

import sqlalchemy as sa

from service.core.concurrency import Event
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import ApprovalDecision, ToolApproval
from service.storage.cluster.membership import EXPIRED, NO_GATEWAY, PENDING, Membership
from service.storage.database.database import Database, SingleOperation
from service.storage.database.notify import gateway_topic, notify_change
from service.storage.database.prepared_statements import insert
from service.storage.database.schema import approvals


class ApprovalState(StrEnum):
    """State of an approval. `cancelled`: its run was ended; `interrupted`: its run was lost."""

    PENDING = PENDING
    DECIDED = "decided"
    EXPIRED = EXPIRED
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


#: Subject of a command that a client runs itself: no run takes over its approval.
NO_RUN = ""


@record
class NewApproval:
    """An approval to ask for; times in ms since the epoch, `arguments` is JSON.

    `subject` is what a decision for the session covers: later calls in the session with the same subject. `None` or
    `NO_RUN`: the decision has to be made for each call.
    """

    id: str
    session_key: str
    run_id: str
    agent_id: str
    tool: str
    arguments: str
    tool_call_id: str
    subject: str | None
    created_at_ms: int
    expires_at_ms: int


@record
class ApprovalRecord(NewApproval):
    """A stored approval."""

    state: ApprovalState
    decision: ApprovalDecision | None = None
    decided_by: str | None = None
    decided_at_ms: int | None = None

    @property
    def decisions(self) -> tuple[ApprovalDecision, ...]:
        """The decisions that can be made."""
        return tuple(one for one in ApprovalDecision if one != ApprovalDecision.ALLOW_SESSION or self.subject)

    def to_tool_approval(self) -> ToolApproval | None:
        """Return the decision for the transcript; `None` without one."""
        if self.decision is None or self.decided_at_ms is None:
            return None
        return ToolApproval(self.id, self.decision, self.decided_by, self.decided_at_ms)


_IS_LEFT_TOO_LONG = sa.and_(approvals.c.gateway_id == NO_GATEWAY, approvals.c.expires_at_ms <= sa.bindparam("now_ms"))
_BY_IDS = sa.select(approvals).where(approvals.c.id.in_(sa.bindparam("ids", expanding=True)))
_PENDING = (
    sa.select(approvals)
    .where(approvals.c.state == PENDING, ~_IS_LEFT_TOO_LONG)
    .order_by(approvals.c.created_at_ms, approvals.c.id)
    .limit(sa.bindparam("most"))
)
_CLOSED_IDS = sa.select(approvals.c.id).where(
    approvals.c.id.in_(sa.bindparam("ids", expanding=True)), approvals.c.state != PENDING
)
_GRANTS = (
    sa.select(approvals)
    .where(
        approvals.c.session_key == sa.bindparam("of_key"),
        approvals.c.subject.in_(sa.bindparam("subjects", expanding=True)),
        approvals.c.decision == ApprovalDecision.ALLOW_SESSION.value,
    )
    .order_by(approvals.c.decided_at_ms)
)


class Approvals:
    """Approvals of all gateways that share a database. `clock` returns seconds since 1970.

    `on_change` is called with each approval that this process creates or closes, `on_check` with each `check`; both
    must return quickly.
    """

    def __init__(self, database: Database, membership: Membership, clock: Callable[[], float]) -> None:
        self.on_change: Callable[[ApprovalRecord], None] = lambda _: None
        self.on_check: Callable[[], None] = lambda: None
        self._database = database
        self._membership = membership
        self._clock = clock
        self._waiting: dict[str, Event] = {}
        self._is_stopping = False

    def now_ms(self) -> int:
        """Current time in ms since the epoch."""
        return int(self._clock() * 1000)

    def create(self, new: Sequence[NewApproval]) -> tuple[ApprovalRecord, ...]:
        """Store pending approvals, or take over those about the same calls whose gateway is gone. Raises `StoreError`.

        Returns them in the order of `new`; one that was taken over has its old `id`.
        """
        created = self._database.write(_Create(new, self._membership.id))
        for one in created:
            if one.state is ApprovalState.PENDING:
                self.on_change(one)
        return created

    def stop(self) -> None:
        """Leave pending approvals of runs that end from now on to be decided: the gateway stops."""
        self._is_stopping = True

    def wait(self, ids: Collection[str], seconds: float) -> None:
        """Wait until all approvals are closed, at most `seconds`. Raises `StoreError`."""
        until = monotonic() + seconds
        closed = [self._waiting.setdefault(one, Event()) for one in ids]
        self._wake_closed()
        for one in closed:
            one.wait(max(0.0, until - monotonic()))

    def cancel(self, ids: Collection[str], run_id: str) -> tuple[ApprovalRecord, ...]:
        """Close those of a run that ends, as `close` does; none if the gateway stops. Raises `StoreError`."""
        if self._is_stopping:
            return ()
        return self.close(ids, run_id, ApprovalState.CANCELLED)

    def close(
        self, ids: Collection[str], run_id: str, state: ApprovalState, decision: ApprovalDecision | None = None
    ) -> tuple[ApprovalRecord, ...]:
        """Close those that are still pending, and return all in the order of `ids`. Raises `StoreError`.

        Those that no longer belong to the run, because this gateway was taken for dead, are returned as interrupted.
        """
        found, changed = self._database.write(_Close(tuple(ids), run_id, state, decision, self.now_ms()))
        self._wake(ids)
        for one in found:
            if one.id in changed:
                self.on_change(one)
        by_id = {one.id: one for one in found}
        return tuple(by_id[one] for one in ids)

    def get(self, approval_id: str) -> ApprovalRecord | None:
        """Return an approval, if it exists. Raises `StoreError`."""
        rows = self._database.fetch(_BY_IDS, {"ids": [approval_id]})
        return _to_record(rows[0]) if rows else None

    def list_pending(self, limit: int) -> tuple[ApprovalRecord, ...]:
        """Return pending approvals, oldest first. Raises `StoreError`."""
        return tuple(map(_to_record, self._database.fetch(_PENDING, {"most": limit, "now_ms": self.now_ms()})))

    def find_grants(self, session_key: str, subjects: Collection[str]) -> dict[str, ApprovalRecord]:
        """Return the decisions for the session that cover `subjects`, by subject. Raises `StoreError`."""
        if not subjects:
            return {}
        rows = self._database.fetch(_GRANTS, {"of_key": session_key, "subjects": list(subjects)})
        return {row.subject: _to_record(row) for row in rows}

    def decide(self, approval_id: str, decision: ApprovalDecision, decided_by: str) -> ApprovalRecord:
        """Close a pending approval with a person's decision.

        Raises `StoreError`, and `GatewayError`: `approval_not_found`, `approval_closed`, `invalid_value` for a decision
        that cannot be made.
        """
        known = self.get(approval_id)
        if known is None:
            text = f'Approval "{approval_id[:128]}" not found. GET /v1/approvals lists the pending ones.'
            raise GatewayError("approval_not_found", text, param="approval_id")
        if known.state is ApprovalState.PENDING and decision not in known.decisions:
            text = f"This call has to be decided by itself. Use one of: {', '.join(known.decisions)}."
            raise GatewayError("invalid_value", text, param="decision")
        decided_by = decided_by.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        closed = self._database.write(_Decide(approval_id, decision, decided_by, self.now_ms()))
        if closed is None:
            now = self.get(approval_id) or known
            outcome = f'decision "{now.decision}"' if now.decision else f'state "{now.state}"'
            text = f"The approval was closed already ({outcome}) and was not changed."
            raise GatewayError("approval_closed", text, param="approval_id")
        self._wake([approval_id])
        self.on_change(closed)
        return closed

    def check(self) -> None:
        """Notice the decisions of other processes. Raises `StoreError`."""
        self._wake_closed()
        self.on_check()

    def _wake_closed(self) -> None:
        if self._waiting:
            self._wake(row.id for row in self._database.fetch(_CLOSED_IDS, {"ids": list(self._waiting)}))

    def _wake(self, ids: Iterable[str]) -> None:
        for one in ids:
            closed = self._waiting.pop(one, None)
            if closed is not None:
                closed.set()


@dataclass(slots=True, eq=False)
class _Create(SingleOperation[tuple[ApprovalRecord, ...]]):
    new: Sequence[NewApproval]
    gateway_id: str

    def apply(self, connection: sa.Connection) -> tuple[ApprovalRecord, ...]:
        return tuple(self._take_over(connection, one) or self._insert(connection, one) for one in self.new)

    def _take_over(self, connection: sa.Connection, new: NewApproval) -> ApprovalRecord | None:
        if new.subject == NO_RUN:
            return None
        is_left = sa.and_(approvals.c.gateway_id == NO_GATEWAY, approvals.c.expires_at_ms > new.created_at_ms)
        own = {
            "gateway_id": self.gateway_id,
            "run_id": new.run_id,
            "tool_call_id": new.tool_call_id,
            "expires_at_ms": new.expires_at_ms,
        }
        if self.again:  # an earlier attempt may have been committed without an acknowledgement
            is_left = sa.or_(is_left, sa.and_(*(approvals.c[name] == one for name, one in own.items())))
        same = (
            approvals.c.session_key == new.session_key,
            approvals.c.tool == new.tool,
            approvals.c.arguments == new.arguments,
            approvals.c.subject.is_not_distinct_from(new.subject),
            approvals.c.state.in_((ApprovalState.PENDING, ApprovalState.DECIDED)),
        )
        left = sa.select(approvals.c.id).where(is_left, *same).order_by(approvals.c.created_at_ms).limit(1)
        found = connection.execute(left.with_for_update()).scalar()
        if found is None:
            return None
        taken = approvals.update().where(approvals.c.id == found).values(own).returning(approvals)
        return _to_record(connection.execute(taken).one())

    def _insert(self, connection: sa.Connection, new: NewApproval) -> ApprovalRecord:
        row = {**_values(new), "gateway_id": self.gateway_id, "state": PENDING}
        connection.execute(insert(connection.dialect, approvals).on_conflict_do_nothing(), [row])
        return ApprovalRecord(**_values(new), state=ApprovalState.PENDING)


@dataclass(slots=True, eq=False)
class _Decide(SingleOperation["ApprovalRecord | None"]):
    """Close a pending approval; returns it, or `None` if it is closed already."""

    id: str
    decision: ApprovalDecision
    decided_by: str
    at_ms: int

    def apply(self, connection: sa.Connection) -> ApprovalRecord | None:
        of_id = approvals.c.id == self.id
        decided = {
            "state": ApprovalState.DECIDED.value,
            "decision": self.decision.value,
            "decided_by": self.decided_by,
            "decided_at_ms": self.at_ms,
        }
        changed = connection.execute(approvals.update().where(of_id, approvals.c.state == PENDING).values(decided))
        row = connection.execute(sa.select(approvals).where(of_id)).first()
        # An earlier attempt may have been committed without an acknowledgement.
        is_own = self.again and row is not None and all(getattr(row, key) == value for key, value in decided.items())
        if row is None or not (changed.rowcount or is_own):
            return None
        notify_change(connection, gateway_topic(row.gateway_id))
        return _to_record(row)


@dataclass(slots=True, eq=False)
class _Close(SingleOperation[tuple[tuple[ApprovalRecord, ...], frozenset[str]]]):
    """Close pending approvals of a run; returns all of `ids`, and the ids of those that were pending."""

    ids: Sequence[str]
    run_id: str
    state: ApprovalState
    decision: ApprovalDecision | None
    at_ms: int

    def apply(self, connection: sa.Connection) -> tuple[tuple[ApprovalRecord, ...], frozenset[str]]:
        closed = {
            "state": self.state.value,
            "decision": None if self.decision is None else self.decision.value,
            "decided_at_ms": self.at_ms,
        }
        own = approvals.c.run_id == self.run_id, approvals.c.gateway_id != NO_GATEWAY
        pending = approvals.c.id.in_(self.ids), approvals.c.state == PENDING, *own
        changed = connection.execute(sa.select(approvals.c.id).where(*pending).with_for_update()).scalars().all()
        connection.execute(approvals.update().where(approvals.c.id.in_(changed)).values(closed))
        rows = connection.execute(sa.select(approvals).where(approvals.c.id.in_(self.ids))).all()
        return tuple(map(self._to_own_record, rows)), frozenset(changed)

    def _to_own_record(self, row: sa.Row[Any]) -> ApprovalRecord:
        found = _to_record(row)
        if row.run_id == self.run_id and row.gateway_id != NO_GATEWAY:
            return found
        return replace(found, state=ApprovalState.INTERRUPTED, decision=None, decided_by=None, decided_at_ms=None)


def _values(new: NewApproval) -> dict[str, Any]:
    return {one.name: getattr(new, one.name) for one in fields(NewApproval)}


def _to_record(row: sa.Row[Any]) -> ApprovalRecord:
    return ApprovalRecord(
        **{one.name: getattr(row, one.name) for one in fields(NewApproval)},
        state=ApprovalState(row.state),
        decision=None if row.decision is None else ApprovalDecision(row.decision),
        decided_by=row.decided_by,
        decided_at_ms=row.decided_at_ms,
    )
