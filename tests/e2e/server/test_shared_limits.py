"""Limits and keys of two gateways that share a database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import httpx
import pytest
from support.api_keys import create_key, open_keys
from support.chat import ask, error_of
from support.live import LiveGateway, live_gateway, scripted_config
from support.polling import until

from service.config.limits import LimitsConfig
from service.core.concurrency import sleep, spawn
from service.core.errors import GatewayError
from service.core.principal import Principal
from service.core.rate_limits import RateLimits
from service.gateway.rate_limiter import RateLimiter
from service.storage.database.open import open_database
from service.storage.storage import Storage


@pytest.fixture(scope="module")
def hosts(
    tmp_path_factory: pytest.TempPathFactory, lasting_database_url: str | None
) -> Iterator[tuple[LiveGateway, LiveGateway]]:
    directory = tmp_path_factory.mktemp("hosts")
    shared = {"OPENCLAW_STATE_DIR": str(directory / "state")}
    env = shared if lasting_database_url is None else {"OPENCLAW_STATE_URL": lasting_database_url}
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(live_gateway(directory / name, scripted_config(), env=env)) for name in ("a", "b")
        )
        yield first, second


def is_refused(client: httpx.Client) -> bool:
    return error_of(ask(client, "hello"))[:2] == (401, "invalid_api_key")


def test_a_hundred_callers_at_two_gateways_get_the_limit(
    hosts: tuple[LiveGateway, LiveGateway], lasting_database_url: str | None
) -> None:
    state = hosts[0].directory.parent / "state"
    key, key_id = create_key(state, limits=RateLimits(60), url=lasting_database_url)
    began = time.monotonic()
    with ExitStack() as stack, ThreadPoolExecutor(20) as pool:
        clients = [stack.enter_context(host.client(key)) for host in hosts]
        answers = list(pool.map(lambda number: ask(clients[number % 2], "hello"), range(100)))
        statuses = [answer.status_code for answer in answers]
        if time.monotonic() < began + 60:
            assert (statuses.count(200), statuses.count(429)) == (60, 40)
        assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in answers if answer.status_code == 429)
        for client in clients:
            assert ask(client, "", model="openclaw/nobody").headers["x-ratelimit-remaining-requests"] == "0"
        with open_keys(state, lasting_database_url) as keys:
            keys.revoke(key_id)
        for client in clients:
            until(partial(is_refused, client))


def test_runs_at_once_are_those_of_both_gateways(
    hosts: tuple[LiveGateway, LiveGateway], lasting_database_url: str | None
) -> None:
    key, _ = create_key(
        hosts[0].directory.parent / "state", limits=RateLimits(concurrent_runs=1), url=lasting_database_url
    )
    with hosts[0].client(key) as first, hosts[1].client(key) as second:
        for client in (first, second, first, second):  # one after the other: none is in the way of the next
            assert ask(client, "hello").status_code == 200
        running = first.post("/v1/runs", json={"input": "x", "model": "scripted/silent"})
        assert running.status_code == 202
        assert error_of(ask(second, "hello"))[:2] == (429, "rate_limit_exceeded")
        second.post(f"{running.headers['location']}/cancel").raise_for_status()
        until(lambda: ask(second, "hello").status_code == 200)


WINDOW_MS = 1000
PRINCIPAL = Principal("key:x", "x", limits=RateLimits(20))


def test_no_window_has_more_than_the_limit(database_url: str | None, tmp_path: Path) -> None:
    """The n-th admission after another one returns a window later than that was asked for, whatever the load."""
    asked, admitted = list[float](), list[float]()
    give_up_at = time.monotonic() + 5 * WINDOW_MS / 1000

    def call(limits: RateLimiter) -> None:
        while (began := time.monotonic()) < give_up_at:
            try:
                limits.admit(PRINCIPAL, "main", lambda: 0)
            except GatewayError:
                sleep(0.01)
                continue
            asked.append(began)
            admitted.append(time.monotonic())

    with ExitStack() as stack:
        callers = []
        for name in "ab":
            database = stack.enter_context(closing(open_database(database_url, tmp_path)))
            storage = Storage(database, clock=time.time, new_id=partial(str, name))
            limits = RateLimiter(storage, LimitsConfig(), WINDOW_MS)
            callers += [spawn(call, limits) for _ in range(50)]
        for caller in callers:
            caller.join()
    asked.sort()
    admitted.sort()
    assert len(admitted) > 20
    # The database counts in whole milliseconds.
    assert all(later - earlier > 0.998 for earlier, later in zip(asked, admitted[20:], strict=False))
