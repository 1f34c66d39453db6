"""Prepared statements of every turn (`service.storage.database.prepared_statements`)."""

from __future__ import annotations

import sqlalchemy as sa

from service.storage.cluster.membership import IS_ACTIVE
from service.storage.database.prepared_statements import Dialect, PreparedStatement, insert, is_among
from service.storage.database.schema import (
    branches,
    entries,
    gateways,
    lanes,
    runs,
    sessions,
    stateless_turns,
    summaries,
    webhooks,
)
from service.storage.database.stateless_views import stateless_runs

_NEW_RUN_COLUMNS = (
    *("id", "session_key", "agent_id", "gateway_id", "door", "state"),
    *("accepted_at_ms", "metadata", "response", "detached", "owner"),
)
_TURN_COLUMNS = [column.name for column in stateless_turns.c if column.name != "id"]
END_COLUMNS = (
    "state",
    "ended_at_ms",
    "model",
    "stop_reason",
    "reply_count",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "error_code",
    "error_message",
    "asked_call_id",
    "asked_after",
    "first_output_at_ms",
    "step",
    "reasoning_tokens",
    "cost_nano",
)


def _acquire_lease(dialect: Dialect) -> sa.Executable:
    own_id = sa.bindparam("gateway_id", type_=sa.Text)
    add = insert(dialect, lanes).values(
        session_key=sa.bindparam("session_key"),
        fence=1,
        run_id=sa.bindparam("run_id"),
        gateway_id=own_id,
        new_since_ms=sa.bindparam("at_ms"),
    )
    # Within one gateway its queue decides: a lease it already holds is left over from a run whose end was not stored.
    free = sa.or_(lanes.c.run_id.is_(None), lanes.c.gateway_id == own_id)
    wanted_by_own = sa.or_(lanes.c.wanted_by.is_(None), lanes.c.wanted_by == own_id)
    next_is_own = sa.or_(wanted_by_own, sa.bindparam("override_waiter", type_=sa.Boolean))
    taken = {
        "fence": lanes.c.fence + 1,
        "run_id": add.excluded.run_id,
        "gateway_id": add.excluded.gateway_id,
        "wanted_by": sa.case((lanes.c.wanted_by != own_id, lanes.c.wanted_by)),
    }
    take = add.on_conflict_do_update(index_elements=["session_key"], set_=taken, where=sa.and_(free, next_is_own))
    return take.returning(lanes.c.fence)


def _begin_run(dialect: Dialect) -> sa.Executable:
    add = insert(dialect, runs)
    updated = {name: add.excluded[name] for name in ("state", "started_at_ms", "gateway_id")}
    # An evicted gateway has rejoined with a new id since it recorded the run; its old id is no member's.
    own = sa.or_(runs.c.gateway_id == add.excluded.gateway_id, runs.c.gateway_id.not_in(sa.select(gateways.c.id)))
    same = sa.and_(IS_ACTIVE, own, runs.c.accepted_at_ms == add.excluded.accepted_at_ms)
    record = add.on_conflict_do_update(index_elements=["id"], set_=updated, where=same)
    return record.returning(runs.c.id)


def _lock_leases(dialect: Dialect) -> sa.Executable:
    return (
        sa.select(lanes.c.session_key, lanes.c.fence, lanes.c.run_id, sessions.c.entry_count)
        .select_from(lanes.outerjoin(sessions, sessions.c.key == lanes.c.session_key))
        .where(is_among(dialect, lanes.c.session_key, "keys"))
        .order_by(lanes.c.session_key)
        .with_for_update(of=lanes)
    )


def _replace_summary(dialect: Dialect) -> sa.Executable:
    add = insert(dialect, summaries)
    updated = {name: add.excluded[name] for name in ("run_id", "role", "payload", "created_at_ms")}
    return add.on_conflict_do_update(index_elements=["session_key", "covers"], set_=updated)


def _run_states(dialect: Dialect) -> sa.Executable:
    found = (
        sa.select(table.c.id, table.c.state, table.c.gateway_id).where(is_among(dialect, table.c.id, "ids"))
        for table in (runs, stateless_runs)
    )
    return sa.union_all(*found)


def _add_stateless_turn(dialect: Dialect) -> sa.Executable:
    # A lease means that the session was continued while its first answer was on its way.
    columns = [stateless_turns.c[name] for name in _TURN_COLUMNS]
    values = sa.select(*(sa.bindparam(column.name, type_=column.type) for column in columns))
    continued = sa.exists().where(lanes.c.session_key == sa.bindparam("session_key", type_=sa.Text))
    return insert(dialect, stateless_turns).from_select(_TURN_COLUMNS, values.where(~continued))


LOCK_MEMBER = PreparedStatement(
    lambda _: sa.select(gateways.c.id).where(gateways.c.id == sa.bindparam("own_id")).with_for_update(key_share=True)
)
ACQUIRE_LEASE = PreparedStatement(_acquire_lease)
NOTE_FIRST_TURN = PreparedStatement(
    lambda _: lanes.update().where(lanes.c.session_key == sa.bindparam("of_key")).values(new_since_ms=None)
)
REQUEST_LEASE = PreparedStatement(
    lambda _: (
        lanes.update()
        .where(lanes.c.session_key == sa.bindparam("of_key"), lanes.c.wanted_by.is_(None))
        .values(wanted_by=sa.bindparam("own_id"))
    )
)
ACCEPT_RUN = PreparedStatement(lambda dialect: insert(dialect, runs).on_conflict_do_nothing(), columns=_NEW_RUN_COLUMNS)
ADD_WEBHOOK = PreparedStatement(
    lambda dialect: insert(dialect, webhooks).on_conflict_do_nothing(), columns=[column.name for column in webhooks.c]
)
BEGIN_RUN = PreparedStatement(_begin_run, columns=(*_NEW_RUN_COLUMNS, "started_at_ms"))
LOCK_LEASES = PreparedStatement(_lock_leases)
RUN_STATES = PreparedStatement(_run_states)
ADD_STATELESS_TURN = PreparedStatement(_add_stateless_turn, order=_TURN_COLUMNS)
TAKE_STATELESS_TURN = PreparedStatement(
    lambda _: (
        stateless_turns.delete()
        .where(stateless_turns.c.session_key == sa.bindparam("of_key"))
        .returning(*stateless_turns.c)
    )
)
CONTINUED = PreparedStatement(
    lambda dialect: sa.select(lanes.c.session_key).where(is_among(dialect, lanes.c.session_key, "keys"))
)
ADD_SESSION = PreparedStatement(lambda dialect: insert(dialect, sessions))
EXTEND_SESSION = PreparedStatement(
    lambda _: (
        sessions.update()
        .where(sessions.c.key == sa.bindparam("of_key"))
        .values(
            entry_count=sa.bindparam("count"),
            updated_at_ms=sa.bindparam("at_ms"),
            model=sa.bindparam("new_model"),
            last_run_id=sa.bindparam("run_id"),
            stateless=sa.false(),
            resends=sa.func.coalesce(sa.bindparam("resent", type_=sa.Boolean), sessions.c.resends),
            branched=sa.or_(sessions.c.branched, sa.bindparam("is_branch", type_=sa.Boolean)),
            input_tokens=sessions.c.input_tokens + sa.bindparam("input"),
            output_tokens=sessions.c.output_tokens + sa.bindparam("output"),
            cached_tokens=sessions.c.cached_tokens + sa.bindparam("cached"),
            cost_nano=sessions.c.cost_nano + sa.bindparam("cost", type_=sa.BigInteger),
        )
    )
)
ADD_ENTRY = PreparedStatement(
    lambda dialect: insert(dialect, entries), columns=[column.name for column in entries.c if column.name != "id"]
)
ADD_BRANCH = PreparedStatement(lambda dialect: insert(dialect, branches))
REPLACE_SUMMARY = PreparedStatement(_replace_summary)
ADD_ENDED_RUN = PreparedStatement(
    lambda dialect: insert(dialect, runs),
    columns=(*dict.fromkeys((*_NEW_RUN_COLUMNS, "started_at_ms", *END_COLUMNS)),),
)
END_RUN = PreparedStatement(
    lambda _: (
        runs.update()
        .where(runs.c.id == sa.bindparam("of_run"))
        .values(
            {name: sa.bindparam(f"new_{name}") for name in END_COLUMNS}
            | {
                "started_at_ms": sa.func.coalesce(
                    runs.c.started_at_ms, sa.bindparam("began_at_ms"), runs.c.accepted_at_ms
                )
            }
        )
    )
)
RELEASE_LEASE = PreparedStatement(
    lambda _: (
        lanes.update()
        .where(lanes.c.session_key == sa.bindparam("of_key"), lanes.c.run_id == sa.bindparam("of_run"))
        .values(run_id=None, gateway_id=None)
    )
)
