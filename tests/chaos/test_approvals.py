"""Approvals of several processes on one database: decided from any of them, and closed when one is killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.approvals import decide, pending, wait_for_pending
from support.chat import ask, error_of, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

WRITE = ("write", {"path": "new.txt", "content": "x"})
SESSION = {"x-openclaw-session-key": "shared"}

#: A heartbeat, in which a dead process of the same host is noticed, several times over.
NOTICED_SECONDS = 20


@contextmanager
def gateways(
    directory: Path, upstream: Upstream, database_url: str | None, count: int = 2
) -> Iterator[list[LiveGateway]]:
    """Gateways that share a database, a file or a server; their agents need approvals for everything."""
    agents = [{"id": "main", "workspace": str(directory), "tools": {"profile": "full", "approvals": {"*": "ask"}}}]
    config = stubbed_config(upstream.url, "stub/play", agents=agents)
    env = {"OPENCLAW_STATE_URL": database_url} if database_url else {"OPENCLAW_STATE_DIR": str(directory / "state")}
    with ExitStack() as stack:
        yield [
            stack.enter_context(live_gateway(directory / f"host-{number}", config, env=env)) for number in range(count)
        ]


def wait_until(check: Any) -> None:
    deadline = time.monotonic() + NOTICED_SECONDS
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_other_process_decides(database_url: str | None, upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers["play"] = Play(calls(WRITE), calls(text="Done."))
    with (
        gateways(tmp_path, upstream, database_url, 3) as [first, second, third],
        first.client(timeout=120) as here,
        second.client(timeout=120) as there,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(ask, here, "go", headers=SESSION)
        approval = wait_for_pending(there)
        assert there.get(f"/v1/runs/{approval['run_id']}").json()["state"] == "waiting"
        third.process.send_signal(signal.SIGKILL)  # a process that does not execute the run
        decided_at = time.monotonic()
        assert decide(there, approval, "allow-once").status_code == 200
        assert text_of(answer.result()) == "Done."
        assert time.monotonic() - decided_at < NOTICED_SECONDS
        assert error_of(decide(here, approval, "deny"))[1] == "approval_closed"
    assert (tmp_path / "new.txt").read_text() == "x"


def test_killed_process_interrupts_its_approvals(database_url: str | None, upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers["play"] = Play(calls(WRITE), calls(WRITE), calls(text="Again."))
    with (
        gateways(tmp_path, upstream, database_url) as [first, second],
        first.client(timeout=120) as here,
        second.client(timeout=120) as there,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(ask, here, "go", headers=SESSION)
        approval = wait_for_pending(there)
        first.process.send_signal(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            answer.result()
        wait_until(lambda: pending(there) == [])
        assert error_of(decide(there, approval, "allow-once")) == (409, "approval_closed", "approval_id")
        assert there.get(f"/v1/runs/{approval['run_id']}").json()["state"] == "interrupted"
        # The session goes on in the other process.
        again = pool.submit(ask, there, "again", headers=SESSION)
        decide(there, wait_for_pending(there), "allow-once").raise_for_status()
        assert text_of(again.result()) == "Again."


def test_approval_of_killed_gateway_is_closed_at_next_start(
    database_url: str | None, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers["play"] = Play(calls(WRITE))
    with (
        gateways(tmp_path, upstream, database_url, 1) as [only],
        only.client(timeout=120) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(ask, client, "go", headers=SESSION)
        approval = wait_for_pending(client)
        only.process.send_signal(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            answer.result()
    with gateways(tmp_path, upstream, database_url, 1) as [only], only.client(timeout=120) as client:
        assert pending(client) == []
        assert "interrupted" in decide(client, approval, "allow-once").json()["error"]["message"]
    assert not (tmp_path / "new.txt").exists()
