"""Searches without end by many callers at once: few processes, and a gateway that still answers."""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.live import LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.processes import command_of, running_children
from support.scripted_upstream import Play, calls
from support.upstream import Exchange, Upstream

from service.tools.process_slots import ProcessSlots

SEARCH_PROGRAM = "service.tools.workspace.search_process"
CALLERS, SEARCHES, RUN_SECONDS = 60, 8, 10


def search_then_end(exchange: Exchange) -> None:
    """Call for searches that do not end, and answer once they have failed."""
    searched = any(message["role"] == "tool" for message in exchange.body["messages"])
    search = ("grep", {"pattern": "^(a+)+$"})
    Play(calls(text="done") if searched else calls(*[search] * SEARCHES))(exchange)


def searches_of(gateway: LiveGateway) -> int:
    return sum(SEARCH_PROGRAM in command_of(child) for child in running_children(gateway.process.pid))


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the gateway needs a processor beside the searches")
def test_searches_of_sixty_callers_leave_room_for_others(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers["search"] = search_then_end
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "a.txt").write_text("a" * 60 + "b")
    defaults = {"workspace": str(workspace), "timeoutSeconds": RUN_SECONDS, "maxConcurrent": CALLERS}
    config = stubbed_config(upstream.url, "stub/search", defaults=defaults)
    most, quiet, loaded = 0, [], []
    with (
        live_gateway(tmp_path, config) as gateway,
        gateway.client() as observer,
        gateway.client(timeout=RUN_SECONDS * 6) as client,
    ):

        def probe() -> float:
            began = time.monotonic()
            assert observer.get("/healthz").status_code == 200
            return time.monotonic() - began

        def ask(number: int) -> int:
            body = {"messages": [{"role": "user", "content": f"search {number}"}]}
            return client.post("/v1/chat/completions", json=body).status_code

        quiet = [probe() for _ in range(30)]
        with ThreadPoolExecutor(CALLERS) as pool:
            began = time.monotonic()
            asked = [pool.submit(ask, number) for number in range(CALLERS)]
            while not all(one.done() for one in asked):
                loaded.append(probe())
                most = max(most, searches_of(gateway))
                time.sleep(0.1)
            took = time.monotonic() - began
        statuses = [one.result() for one in asked]
        until(lambda: searches_of(gateway) == 0)
    assert 0 < most <= ProcessSlots().limit
    assert set(statuses) <= {200, 503, 504}
    assert max(loaded) < took / 4
    assert statistics.median(loaded) < 20 * statistics.median(quiet)
