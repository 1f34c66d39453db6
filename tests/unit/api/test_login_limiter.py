"""Failed logins counted by gateways that share a database, SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.chat import error_of
from support.clock import Clock
from support.live import live_gateway, scripted_config
from support.polling import until

from service.api.login_limiter import SharedLoginLimiter
from service.config.gateway import LoginLimitConfig
from service.core import concurrency
from service.storage.cluster.login_failures import LoginFailures, LoginLimit
from service.storage.database.database import Database
from service.storage.database.open import open_database

CLIENT, OTHER = "203.0.113.7", "203.0.113.8"

OpenLimiter = Callable[..., SharedLoginLimiter]


@pytest.fixture
def limiter(database_url: str | None, tmp_path: Path, clock: Clock) -> Iterator[OpenLimiter]:
    """Opens the limiter of one more gateway."""
    databases: list[Database] = []

    def open_limiter(*, alone: bool = False, **config: int) -> SharedLoginLimiter:
        databases.append(open_database(database_url, tmp_path))
        limits = LoginLimitConfig.model_validate({"maxAttempts": 3, **config})
        return SharedLoginLimiter(limits, LoginFailures(databases[-1]), has_peers=lambda: not alone, clock=clock)

    yield open_limiter
    for database in databases:
        database.close()


def until_locked(limiter: SharedLoginLimiter, address: str) -> None:
    until(lambda: limiter.lockout_seconds(address) > 0)


def test_failures_at_several_gateways_add_up(limiter: OpenLimiter) -> None:
    ann, ben = limiter(), limiter()
    for one in (ann, ben, ann):
        one.record_failure(CLIENT)
        assert one.lockout_seconds(CLIENT) == 0
    ben.record_failure(CLIENT)
    assert ben.lockout_seconds(CLIENT) == pytest.approx(300)
    assert ben.lockout_seconds(OTHER) == 0


def test_lockout_reaches_other_gateways(limiter: OpenLimiter) -> None:
    ann, ben = limiter(), limiter()
    assert ben.lockout_seconds(CLIENT) == 0
    for _ in range(4):
        ann.record_failure(CLIENT)
    until_locked(ben, CLIENT)


def test_lockout_survives_its_process(limiter: OpenLimiter) -> None:
    ann = limiter(alone=True)
    for _ in range(4):
        ann.record_failure(CLIENT)
    until_locked(limiter(alone=True), CLIENT)


def test_lockout_ends(limiter: OpenLimiter, clock: Clock) -> None:
    ann, ben = limiter(), limiter()
    for _ in range(4):
        ann.record_failure(CLIENT)
    until_locked(ben, CLIENT)
    clock.now += 301
    assert ben.lockout_seconds(CLIENT) == 0
    ben.record_failure(CLIENT)
    assert ben.lockout_seconds(CLIENT) == 0


def test_clock_set_back_does_not_prolong_lockout(limiter: OpenLimiter, clock: Clock) -> None:
    ann, ben = limiter(), limiter()
    for _ in range(4):
        ann.record_failure(CLIENT)
    until_locked(ben, CLIENT)
    clock.now -= 86_400
    assert ben.lockout_seconds(CLIENT) <= 300


def test_failures_outside_window_do_not_count(limiter: OpenLimiter, clock: Clock) -> None:
    ann, ben = limiter(), limiter()
    for _ in range(3):
        ann.record_failure(CLIENT)
    clock.now += 61
    ben.record_failure(CLIENT)
    assert ben.lockout_seconds(CLIENT) == 0


def test_right_secret_clears_failures(limiter: OpenLimiter, clock: Clock) -> None:
    ann, ben = limiter(), limiter()
    for _ in range(3):
        ann.record_failure(CLIENT)
    ann.record_success(CLIENT)
    until(lambda: CLIENT not in ann._failures.read_changes(int(clock() * 1000)))
    for _ in range(3):
        ben.record_failure(CLIENT)
    assert ben.lockout_seconds(CLIENT) == 0


def test_lockout_ends_after_clock_was_set_back(limiter: OpenLimiter, clock: Clock) -> None:
    ann, ben = limiter(lockoutMs=2000), limiter(lockoutMs=2000)
    for _ in range(4):
        ann.record_failure(CLIENT)
    until_locked(ben, CLIENT)
    clock.now -= 3600
    late = limiter(lockoutMs=2000)
    until_locked(late, CLIENT)
    for one in (ann, ben, late):
        until(lambda one=one: one.lockout_seconds(CLIENT) == 0)  # type: ignore[misc]  # bound for this round
    ann.record_failure(CLIENT)
    assert ann.lockout_seconds(CLIENT) == 0  # a first failure does not revive the old lockout


def test_failures_after_clock_was_set_back_are_seen_by_others(limiter: OpenLimiter, clock: Clock) -> None:
    ann, ben = limiter(), limiter()
    ann.record_failure(CLIENT)
    ben.lockout_seconds(CLIENT)
    concurrency.sleep(0.2)
    clock.now -= 3600
    for _ in range(4):
        ann.record_failure(OTHER)
    until_locked(ben, OTHER)


def test_gateway_counts_locally_without_database(tmp_path: Path, clock: Clock) -> None:
    database = open_database(None, tmp_path)
    limits = LoginLimitConfig.model_validate({"maxAttempts": 3})
    alone = SharedLoginLimiter(limits, LoginFailures(database), has_peers=lambda: True, clock=clock)
    database.close()
    for _ in range(4):
        alone.record_failure(CLIENT)
    assert alone.lockout_seconds(CLIENT) > 0
    alone.record_success(CLIENT)


def test_old_failures_are_removed(database: Database) -> None:
    failures, limits = LoginFailures(database), {"maxAttempts": 3}
    clock = Clock()
    limiter = SharedLoginLimiter(LoginLimitConfig.model_validate(limits), failures, has_peers=lambda: True, clock=clock)
    limiter.record_failure(CLIENT)
    clock.now += 3600
    limiter.record_failure(OTHER)
    assert set(LoginFailures(database).read_changes(int(clock.now * 1000))) == {OTHER}


def test_failure_that_waited_to_be_recorded_does_not_end_a_lockout(database: Database) -> None:
    failures, limit = LoginFailures(database), LoginLimit(max_attempts=2, window_ms=60_000, lockout_ms=300_000)
    locked_until_ms = [failures.record("192.0.2.7", 1_000_000, limit) for _ in range(3)][-1]
    assert locked_until_ms == 1_300_000
    assert failures.record("192.0.2.7", 999_990, limit) == locked_until_ms


def test_exempt_loopback_does_not_touch_database(database: Database) -> None:
    failures = LoginFailures(database)
    limiter = SharedLoginLimiter(LoginLimitConfig(max_attempts=1), failures, has_peers=lambda: True, clock=Clock())
    for _ in range(5):
        limiter.record_failure("127.0.0.1")
    assert limiter.lockout_seconds("127.0.0.1") == 0
    assert failures.read_changes(0) == {}


def test_workers_share_one_allowance(tmp_path: Path) -> None:
    auth = {"mode": "token", "token": "right", "rateLimit": {"maxAttempts": 12, "exemptLoopback": False}}
    with live_gateway(tmp_path, scripted_config(auth=auth), arguments=("--workers", "2")) as running:

        def guess(_: int) -> int:  # each on a connection of its own, which any worker may take
            wrong = {"Authorization": "Bearer wrong"}
            return httpx.get(f"{running.url}/v1/models", headers=wrong, timeout=30).status_code

        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(guess, range(40)))
        assert statuses.count(401) <= 12 + 4  # those that were under way when the last one was counted
        assert 429 in statuses
        right = {"Authorization": "Bearer right"}

        def is_refused() -> bool:
            return httpx.get(f"{running.url}/v1/models", headers=right, timeout=30).status_code == 429

        until(lambda: all(is_refused() for _ in range(20)))  # by either worker
        with running.client("right") as client:
            refused = client.get("/v1/models")
        assert error_of(refused)[:2] == (429, "too_many_failed_attempts")
