"""`openclaw runs`, against a live gateway, through a connection that breaks again and again."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.preloaded import Ended, run
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

WORDS = [f"word {number}, " for number in range(50)]


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("gateway")
    agents = [{"id": "main", "workspace": str(directory)}]
    with live_gateway(directory, stubbed_config(module_upstream.url, agents=agents)) as running:
        yield running


def openclaw(url: str, *arguments: str, secret: str = TOKEN) -> Ended:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    environment |= {"OPENCLAW_GATEWAY_URL": url, "OPENCLAW_GATEWAY_TOKEN": secret}
    return run(("runs", *arguments), cwd=Path.cwd(), env=environment)


def start(gateway: LiveGateway, model: str, **fields: Any) -> str:
    """Start a run and return its id."""
    with gateway.client() as client:
        response = client.post("/v1/runs", json={"input": "hi", "model": f"stub/{model}", **fields})
        return str(response.json()["id"])


class CuttingProxy(socketserver.ThreadingTCPServer):
    """Passes connections on to a gateway, and cuts each after some bytes of its response."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, gateway: LiveGateway, bytes_each: int) -> None:
        self.gateway, self.bytes_each, self.cuts = gateway, bytes_each, 0
        super().__init__(("127.0.0.1", 0), _Cut)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Cut(socketserver.BaseRequestHandler):
    server: CuttingProxy

    def handle(self) -> None:
        with socket.create_connection(self.server.gateway.address) as upstream:
            upstream.sendall(self.request.recv(65536))
            left = self.server.bytes_each
            while left and (data := upstream.recv(left)):
                self.request.sendall(data)
                left -= len(data)
            self.server.cuts += not left


def test_runs_are_listed_shown_and_cancelled(gateway: LiveGateway) -> None:
    assert openclaw(gateway.url, "list").stdout == "There are no such runs.\n"
    run_id = start(gateway, "hang", session_key="cli")
    with gateway.client() as client:
        until(lambda: client.get(f"/v1/runs/{run_id}").json()["state"] == "running")
    listed = openclaw(gateway.url, "list", "--state", "running", "--session-key", "cli")
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [[run_id, "running"]], listed.stderr
    shown = openclaw(gateway.url, "show", run_id).stdout
    assert all(text in shown for text in (run_id, "running", "agent:main:cli", "stub/hang"))
    assert openclaw(gateway.url, "cancel", run_id).stdout == f"Cancelled {run_id}.\n"
    watched = openclaw(gateway.url, "watch", run_id)
    assert (watched.returncode, "aborted" in watched.stderr) == (1, True)
    assert json.loads(openclaw(gateway.url, "show", run_id, "--json").stdout)["state"] == "aborted"
    again = openclaw(gateway.url, "cancel", run_id, "--json")
    assert (again.returncode, json.loads(again.stdout)["error"]["code"]) == (1, "run_ended")
    assert json.loads(openclaw(gateway.url, "list", "--json").stdout)["data"][0]["id"] == run_id


@pytest.mark.parametrize("bytes_each", [1700, 2500, 8192])
def test_watch_shows_all_of_a_run_however_often_the_connection_breaks(
    gateway: LiveGateway, module_upstream: Upstream, bytes_each: int
) -> None:
    module_upstream.answers["many"] = Play(
        calls(("find", {"pattern": "*.none"}), text="\x1b[2J"), calls(text="".join(WORDS))
    )
    run_id = start(gateway, "many")
    with CuttingProxy(gateway, bytes_each) as proxy:
        watched = openclaw(proxy.url, "watch", run_id)
        events = [json.loads(line) for line in openclaw(proxy.url, "watch", run_id, "--json").stdout.splitlines()]
        proxy.shutdown()
    assert (watched.returncode, watched.stdout) == (0, "\x1b[2J\n\n" + "".join(WORDS) + "\n"), watched.stderr
    assert '[find {"pattern":"*.none"}]' in watched.stderr
    assert (proxy.cuts > 0) == ("Connecting again" in watched.stderr)
    assert bytes_each > 1700 or proxy.cuts >= 2
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    assert (events[0]["type"], events[-1]["type"]) == ("run.queued", "run.ended")
    last = openclaw(gateway.url, "watch", run_id, "--after", str(numbers[-1]))
    assert (last.returncode, last.stdout) == (0, "")


def test_refusals_and_missing_gateways_are_reported(gateway: LiveGateway, tmp_path: Path) -> None:
    del tmp_path
    for command in ("show", "watch", "cancel"):
        unknown = openclaw(gateway.url, command, "nobody", "--json")
        assert (unknown.returncode, json.loads(unknown.stdout)["error"]["code"]) == (1, "run_not_found")
    assert "OPENCLAW_GATEWAY_TOKEN" in openclaw(gateway.url, "list", secret="wrong").stderr
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for arguments in (["list"], ["watch", "x"]):
            done = openclaw(url, *arguments, "--json")
            assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "gateway_unreachable")
