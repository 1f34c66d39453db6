"""Approvals of several processes on one database: decided from any of them, and there after one is killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from support.approvals import decide, pending, wait_for_pending
from support.chat import ask, error_of, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

WRITE = ("write", {"path": "new.txt", "content": "x"})
SESSION = {"x-openclaw-session-key": "shared"}

#: A heartbeat, in which a dead process of the same host is noticed, several times over.
NOTICED_SECONDS = 20


@contextmanager
def gateways(
    directory: Path, upstream: Upstream, database_url: str | None, count: int = 2, arguments: tuple[str, ...] = ()
) -> Iterator[list[LiveGateway]]:
    """Gateways that share a database, a file or a server; their agents need approvals for everything."""
    agents = [{"id": "main", "workspace": str(directory), "tools": {"profile": "full", "approvals": {"*": "ask"}}}]
    config = stubbed_config(upstream.url, "stub/play", agents=agents)
    env = {"OPENCLAW_STATE_URL": database_url} if database_url else {"OPENCLAW_STATE_DIR": str(directory / "state")}
    with ExitStack() as stack:
        yield [
            stack.enter_context(live_gateway(directory / f"host-{number}", config, arguments=arguments, env=env))
            for number in range(count)
        ]


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


@pytest.mark.parametrize("is_decided_first", [True, False])
def test_approval_outlives_the_process_of_its_run(
    database_url: str | None, upstream: Upstream, tmp_path: Path, is_decided_first: bool
) -> None:
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
        until(lambda: there.get(f"/v1/runs/{approval['run_id']}").json()["state"] == "interrupted")
        assert [one["id"] for one in pending(there)] == [approval["id"]]
        # The session goes on in the other process: its next run asks about the same call.
        if is_decided_first:
            decide(there, approval, "allow-once").raise_for_status()
        again = pool.submit(ask, there, "again", headers=SESSION)
        if not is_decided_first:
            until(lambda: [one["run_id"] for one in pending(there)] not in ([], [approval["run_id"]]))
            decide(there, approval, "allow-once").raise_for_status()
        assert text_of(again.result()) == "Again."
    assert (tmp_path / "new.txt").read_text() == "x"


@pytest.mark.parametrize("ends_with", [signal.SIGKILL, signal.SIGTERM])
def test_approval_outlives_a_restart(
    database_url: str | None, upstream: Upstream, tmp_path: Path, ends_with: signal.Signals
) -> None:
    upstream.answers["play"] = Play(calls(WRITE), calls(WRITE), calls(text="Again."))
    with (
        gateways(tmp_path, upstream, database_url, 1, ("--grace", "0")) as [only],
        only.client(timeout=120) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(ask, client, "go", headers=SESSION)
        approval = wait_for_pending(client)
        only.process.send_signal(ends_with)
        with suppress(httpx.TransportError):
            answer.result()
    with gateways(tmp_path, upstream, database_url, 1) as [only], only.client(timeout=120) as client:
        assert [one["id"] for one in pending(client)] == [approval["id"]]
        assert not (tmp_path / "new.txt").exists()
        decide(client, approval, "allow-once").raise_for_status()
        assert text_of(ask(client, "again", headers=SESSION)) == "Again."
    assert (tmp_path / "new.txt").read_text() == "x"
