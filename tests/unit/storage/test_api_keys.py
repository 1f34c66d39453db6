"""Named keys in the database: what is stored of them, and how soon a change is in force in another process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.clock import Clock
from support.polling import until

from service.core.concurrency import sleep
from service.core.principal import ADMINISTRATOR, Principal, Scope
from service.storage.api_keys import FRESH_SECONDS, ApiKey, ApiKeys
from service.storage.database.caller_schema import api_keys
from service.storage.database.database import Database
from service.storage.database.open import open_database


@pytest.fixture
def database(database_url: str | None, tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(database_url, tmp_path)) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


def authenticated(keys: ApiKeys, text: str) -> Principal | None:
    return keys.authenticate(text.encode())


def test_a_key_gives_what_it_was_created_with(database: Database, clock: Clock) -> None:
    keys = ApiKeys(database, clock)
    key, text = keys.create("anna", [Scope.WRITE], agents=["beta"], models=["openai/*"])
    found = authenticated(ApiKeys(database, clock), text)
    scopes = frozenset({Scope.CHAT, Scope.READ, Scope.WRITE})
    assert found == Principal(f"key:{key.id}", key.id, "anna", scopes, ("beta",), ("openai/*",))
    assert found.may_use("OpenAI/gpt-5")
    assert not found.may_use("anthropic/claude")
    assert [one.id for one in keys.list()] == [key.id]
    admin, text = keys.create("ops", [Scope.ADMIN])
    found = authenticated(keys, text)
    assert found == Principal(None, admin.id, "ops")
    assert (found.scopes, found.may_see("key:x"), found.may_see(None)) == (ADMINISTRATOR.scopes, True, True)
    assert authenticated(keys, text[:-1]) is None
    assert authenticated(keys, text + "x") is None
    assert authenticated(keys, "ocgw_") is None


def test_only_digests_are_stored_and_shown(database: Database, clock: Clock) -> None:
    keys = ApiKeys(database, clock)
    key, first = keys.create("anna", [Scope.CHAT])
    second = keys.rotate(key.id, grace_seconds=60)
    rows = database.read(lambda connection: connection.execute(sa.select(api_keys)).all())
    shown = f"{rows} {keys.list()} {key} {authenticated(keys, second)}"
    assert [text for text in (first, second) if text.rpartition("_")[2] in shown] == []
    assert key.digest not in repr(keys.list())


def test_expiry_and_the_grace_of_an_old_key_end(database: Database, clock: Clock) -> None:
    keys = ApiKeys(database, clock)
    key, old = keys.create("anna", [Scope.CHAT], expires_at_ms=int(clock() * 1000) + 60_000)
    connected = authenticated(keys, old)
    assert connected
    new = keys.rotate(key.id, grace_seconds=10)
    until(lambda: authenticated(keys, new))
    assert authenticated(keys, old) == connected
    assert keys.renew(connected)
    clock.now += 11
    assert not keys.renew(connected)
    assert authenticated(keys, old) is None
    connected = authenticated(keys, new)
    assert connected
    assert keys.renew(connected)
    clock.now += 60
    assert authenticated(keys, new) is None
    assert not keys.renew(connected)


def test_a_change_is_in_force_in_other_processes_within_a_second(database: Database, clock: Clock) -> None:
    assert FRESH_SECONDS < 0.5
    here, there = ApiKeys(database, clock), ApiKeys(database, clock)
    key, text = here.create("anna", [Scope.CHAT])
    unknown = text.replace(key.id, "0" * 12)
    connected = authenticated(there, text)
    assert connected
    assert authenticated(there, unknown) is None
    here.revoke(key.id)
    until(lambda: authenticated(there, text) is None)
    assert not there.renew(connected)


def test_the_last_use_is_stored(database: Database, clock: Clock) -> None:
    keys = ApiKeys(database, clock)
    _, text = keys.create("anna", [Scope.CHAT])

    def stored() -> ApiKey | None:
        sleep(0.01)  # others run
        return next((one for one in keys.list() if one.last_used_at_ms is not None), None)

    assert stored() is None
    assert authenticated(keys, text)
    assert until(stored).last_used_at_ms == int(clock() * 1000)
