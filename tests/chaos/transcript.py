"""Compare the stored turns, read directly from the database, with the answers clients received."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from chaos.clients import Ledger
from service.storage.database.caller_schema import daily_usage
from service.storage.database.open import FILE_NAME
from service.storage.database.schema import entries, runs, stateless_turns
from service.storage.database.stateless_views import stateless_runs
from service.storage.message_codec import from_payload
from service.storage.runs.stateless_turns import StatelessTurn


@contextmanager
def connected(database_url: str | None, state_dir: Path) -> Iterator[sa.Connection]:
    """Open a read connection."""
    url = sa.make_url(database_url) if database_url else sa.URL.create("sqlite", database=str(state_dir / FILE_NAME))
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def read_turns(connection: sa.Connection) -> dict[str, list[str]]:
    """Return the questions of each session, in order. Fails for an incomplete or repeated turn."""
    alone = [StatelessTurn.from_row(row).to_entries() for row in connection.execute(sa.select(stateless_turns))]
    rows = connection.execute(sa.select(entries).order_by(entries.c.session_key, entries.c.seq)).all()
    connection.rollback()  # start a new snapshot
    turns: dict[str, list[str]] = {}
    sessions: dict[str, list[Any]] = {}
    for row in (*chain.from_iterable(alone), *rows):
        sessions.setdefault(row.session_key, []).append(row)
    for key, session in sessions.items():
        assert [row.seq for row in session] == list(range(len(session))), key
        assert len(session) % 2 == 0, f"half a turn in {key}"
        for asked, answered in zip(session[::2], session[1::2], strict=True):
            said = [from_payload(row.role, row.payload).text for row in (asked, answered)]
            assert (asked.role, answered.role) == ("user", "assistant"), key
            assert said[0] == said[1], key
            assert asked.run_id == answered.run_id, key
            turns.setdefault(key, []).append(said[0])
    return turns


def check_against(ledger: Ledger, turns: dict[str, list[str]]) -> None:
    """Check that every received answer is stored exactly once and no question with a key is stored twice."""
    for session, question in ledger.answers:
        assert turns.get(session, []).count(question.text) == 1, (session, question)
    said = Counter(text for texts in turns.values() for text in texts)
    keyed = {question.text for _, question in ledger.answers if question.idempotency_key is not None}
    assert {text: count for text, count in said.items() if text in keyed and count > 1} == {}


def check_usage(connection: sa.Connection) -> None:
    """Check that the totals have what the stored runs have used, no more and no less."""
    names = ("input_tokens", "output_tokens", "cached_tokens")
    recorded = sa.union_all(*(sa.select(*(table.c[name] for name in names)) for table in (runs, stateless_runs)))
    sums = [
        connection.execute(sa.select(*(sa.func.coalesce(sa.func.sum(source.c[name]), 0) for name in names))).one()
        for source in (recorded.subquery(), daily_usage)
    ]
    ended = sa.union_all(
        *(sa.select(table.c.id).where(table.c.input_tokens > 0) for table in (runs, stateless_runs))
    ).subquery()
    counted = sa.select(sa.func.coalesce(sa.func.sum(daily_usage.c.runs), 0))
    counts = [connection.execute(one).scalar_one() for one in (sa.select(sa.func.count()).select_from(ended), counted)]
    connection.rollback()
    assert tuple(sums[0]) == tuple(sums[1])
    assert counts[0] == counts[1]


def runs_by_state(connection: sa.Connection) -> Counter[str]:
    """Count the recorded runs by state."""
    recorded = sa.union_all(sa.select(runs.c.state), sa.select(stateless_runs.c.state))
    states = connection.execute(recorded).scalars().all()
    connection.rollback()
    return Counter(states)
