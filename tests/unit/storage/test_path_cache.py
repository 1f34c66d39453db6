"""The cache of decoded messages: what it holds, and that it never shows an outdated path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.transcripts import Transcripts

from service.core.messages import Message, ProviderData, Role, text_message
from service.storage.database.open import open_database, open_file
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState
from service.storage.sessions.path_cache import MIN_MESSAGES, LoadedPath, PathCache
from service.storage.sessions.tree import SessionTree

KEY = "agent:main:long"


def said(*texts: str) -> tuple[Message, ...]:
    return tuple(text_message(Role.USER, text) for text in texts)


MANY = said(*(f"message {number}" for number in range(32)))


def cached(key: str, *, size: int = 10) -> LoadedPath:
    return LoadedPath(SessionTree(f"id of {key}", len(MANY)), (range(len(MANY)),), None, MANY, size)


@pytest.fixture
def stores(database_url: str | None, tmp_path: Path) -> Iterator[tuple[Transcripts, Transcripts]]:
    """Two processes that share a database."""
    with (
        closing(Transcripts(open_database(database_url, tmp_path))) as one,
        closing(Transcripts(open_database(database_url, tmp_path))) as other,
    ):
        yield one, other


def add(store: Transcripts, *messages: Message, parent: int | None = None) -> None:
    outcome = RunOutcome(RunState.OK, messages=messages, parent=parent)
    store.finish_run(KEY, "main", store.storage.ledger.new_id(), outcome)


def test_messages_of_another_process_are_read(stores: tuple[Transcripts, Transcripts]) -> None:
    one, other = stores
    add(one, *MANY)
    first = one.load_conversation(KEY)
    add(other, *said("from the other"))
    second = one.load_conversation(KEY)
    assert second == (*MANY, *said("from the other"))
    assert all(map(lambda before, after: before is after, first, second))


def test_summary_of_another_process_is_read(stores: tuple[Transcripts, Transcripts]) -> None:
    one, other = stores
    add(one, *MANY)
    one.load_conversation(KEY)
    [summary] = said("summary")
    other.finish_run(KEY, "main", "s", RunOutcome(RunState.OK, summary=summary, kept=MIN_MESSAGES))
    assert one.load_conversation(KEY) == (summary, *MANY[-MIN_MESSAGES:])
    add(other, *said("more"))
    assert one.load_conversation(KEY) == (summary, *MANY[-MIN_MESSAGES:], *said("more"))


def test_summary_in_place_of_the_cached_one_is_read(stores: tuple[Transcripts, Transcripts]) -> None:
    one, other = stores
    add(one, *MANY)
    kept = MANY[-MIN_MESSAGES:]
    for store, name in ((one, "first"), (other, "second")):
        [summary] = said(name)
        store.finish_run(KEY, "main", name, RunOutcome(RunState.OK, summary=summary, kept=MIN_MESSAGES))
        assert one.load_conversation(KEY) == (summary, *kept)


def test_branch_of_another_process_is_read(stores: tuple[Transcripts, Transcripts]) -> None:
    one, other = stores
    add(one, *MANY)
    one.load_conversation(KEY)
    add(other, *said("branch"), parent=MIN_MESSAGES)
    assert one.load_conversation(KEY) == (*MANY[: MIN_MESSAGES + 1], *said("branch"))
    add(other, *said("back"), parent=len(MANY) - 1)
    assert one.load_conversation(KEY) == (*MANY, *said("back"))


def test_session_that_was_begun_again_is_read(stores: tuple[Transcripts, Transcripts]) -> None:
    one, other = stores
    add(one, *MANY)
    one.load_conversation(KEY)
    assert other.delete_session(KEY)
    add(other, *reversed(MANY))
    assert one.load_conversation(KEY) == MANY[::-1]


def test_cache_is_bounded_in_bytes() -> None:
    cache = PathCache(max_bytes=30)
    for key in "abcd":
        cache.put(key, cached(key))
    assert [key for key in "abcd" if cache.find(key, f"id of {key}", (range(99),))] == ["b", "c", "d"]
    cache.put("huge", cached("huge", size=31))
    assert cache.find("huge", "id of huge", (range(99),)) is None
    cache.put("b", cached("b", size=25))
    assert [key for key in "bcd" if cache.find(key, f"id of {key}", (range(99),))] == ["b"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ((range(32),), True),
        ((range(40),), True),
        ((range(40), range(50, 60)), True),
        ((range(31),), False),
        ((range(20), range(40, 60)), False),
        ((range(1, 40),), False),
        ((), False),
    ],
)
def test_cached_path_is_used_for_paths_that_begin_with_it(path: tuple[range, ...], *, found: bool) -> None:
    assert cached("a").is_beginning_of(path) is found


def test_short_sessions_are_not_cached(tmp_path: Path) -> None:
    with closing(Transcripts(open_file(tmp_path / "s.sqlite"))) as store:
        add(store, *MANY[: MIN_MESSAGES - 1])
        assert store.load_conversation(KEY)[0] is not store.load_conversation(KEY)[0]
        add(store, *MANY)
        assert store.load_conversation(KEY)[0] is store.load_conversation(KEY)[0]


def take_turn(store: Transcripts, *messages: Message, parent: int | None = None) -> tuple[Message, ...]:
    """Execute a run in the session as the gateway does; return what it saw before its own messages."""
    ledger = store.storage.ledger
    run = AcceptedRun(ledger.new_id(), KEY, "main", Protocol.HTTP, ledger.now_ms(), stateless=False)
    opened = ledger.open(run, None)
    loaded = store.load_current(KEY, opened.head)
    assert loaded.tree == store.read_tree(KEY)
    outcome = RunOutcome(RunState.OK, messages=messages, parent=parent)
    opened.finish(outcome)
    if parent is None:
        store.add_turn(run, loaded, outcome)
    else:
        store.add_turn(run, store.load_path(KEY, loaded.tree, parent), outcome)
    return loaded.messages


def test_own_turns_are_not_read_again(stores: tuple[Transcripts, Transcripts]) -> None:
    one, _ = stores
    assert take_turn(one, *MANY) == ()
    assert all(map(lambda seen, said: seen is said, take_turn(one, *said("more")), MANY))
    seen = take_turn(one, *said("branch"), parent=MIN_MESSAGES)
    assert seen == (*MANY, *said("more"))
    assert take_turn(one) == (*MANY[: MIN_MESSAGES + 1], *said("branch"))


def test_turn_behind_one_of_another_process_sees_it(stores: tuple[Transcripts, Transcripts]) -> None:
    one, other = stores
    take_turn(one, *MANY)
    take_turn(other, *said("from the other"))
    assert take_turn(one, *said("own")) == (*MANY, *said("from the other"))
    assert take_turn(other, *said("branch"), parent=0) == (*MANY, *said("from the other", "own"))
    assert take_turn(one, *said("on the branch")) == (MANY[0], *said("branch"))
    [summary] = said("summary")
    other.finish_run(KEY, "main", "s", RunOutcome(RunState.OK, messages=said("last"), summary=summary, kept=2))
    assert take_turn(one) == (summary, *said("on the branch", "last"))
    assert other.delete_session(KEY)
    assert take_turn(one, *MANY) == ()
    assert other.delete_session(KEY)
    take_turn(other, *MANY[::-1])
    assert take_turn(one) == MANY[::-1]


def test_loaded_path_counts_the_messages_before_provider_data(stores: tuple[Transcripts, Transcripts]) -> None:
    one, other = stores
    signed = replace(MANY[0], provider_data=ProviderData({"a": 1}, {}, "m"))
    for added, unsigned in ((MANY, len(MANY)), ((MANY[0], signed, MANY[1]), len(MANY) + 1), (MANY, len(MANY) + 1)):
        take_turn(one, *added)
        assert {store.load_current(KEY).unsigned for store in (one, other)} == {unsigned}
