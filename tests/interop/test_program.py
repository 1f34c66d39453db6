"""OpenClaw's command-line program and Node client against a live gateway."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.operator_client import operator_client
from support.processes import started

from interop.conftest import Published

SECONDS = 180


def environment(gateway_url: str, home: Path, published: Published, token: str = TOKEN) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    return {
        "PATH": f"{published.node.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "OPENCLAW_GATEWAY_URL": gateway_url.replace("http://", "ws://"),
        "OPENCLAW_GATEWAY_TOKEN": token,
        "OPENCLAW_INTEROP_DIR": str(published.directory),
    }


def run_program(published: Published, env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [str(published.node), str(published.program), *arguments]
    return subprocess.run(command, env=dict(env), capture_output=True, timeout=SECONDS, check=False)


def test_program_runs_agent(gateway: LiveGateway, published: Published, tmp_path: Path) -> None:
    env = environment(gateway.url, tmp_path / "home", published)
    arguments = ("--message", "hello from the program", "--agent", "beta", "--session-key", "agent:beta:interop")
    done = run_program(published, env, "agent", *arguments, "--json")
    assert done.returncode == 0, done.stderr.decode()
    answer = orjson.loads(done.stdout)
    assert (answer["status"], answer["summary"]) == ("ok", "completed")
    assert answer["result"]["payloads"] == [{"text": "hello from the program", "mediaUrl": None}]
    with operator_client(gateway) as operator:
        messages = operator.call("chat.history", {"sessionKey": "agent:beta:interop"})["messages"]
    assert messages[0]["content"] == [{"type": "text", "text": "hello from the program"}]


def test_program_prints_only_the_answer(gateway: LiveGateway, published: Published, tmp_path: Path) -> None:
    env = environment(gateway.url, tmp_path / "home", published)
    done = run_program(published, env, "agent", "--message", "only this", "--agent", "main")
    assert (done.returncode, done.stdout.decode().strip()) == (0, "only this")


def test_program_reports_wrong_token(gateway: LiveGateway, published: Published, tmp_path: Path) -> None:
    env = environment(gateway.url, tmp_path / "home", published, token="wrong")
    done = run_program(published, env, "agent", "--message", "hi", "--agent", "main", "--json")
    assert done.returncode == 1
    assert "token" in (done.stdout + done.stderr).decode().lower()


@pytest.mark.parametrize("command", [("health", "--json"), ("gateway", "call", "status", "--json")])
def test_program_reports_gateway_health(
    gateway: LiveGateway, published: Published, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = run_program(published, environment(gateway.url, tmp_path / "home", published), *command)
    assert done.returncode == 0, done.stderr.decode()
    assert orjson.loads(done.stdout)["defaultAgentId"] == "main"


@contextmanager
def node_client(published: Published, env: Mapping[str, str]) -> Iterator[queue.Queue[dict[str, Any]]]:
    """The published client running; what it says comes through the queue."""
    said: queue.Queue[dict[str, Any]] = queue.Queue()
    command = [str(published.node), str(Path(__file__).with_name("client.mjs"))]
    with started(command, env=dict(env), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        stdout = process.stdout

        def read() -> None:
            for line in stdout:
                said.put(orjson.loads(line))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield said
        finally:
            process.kill()
            reader.join()


def wait_for(said: queue.Queue[dict[str, Any]], kind: str, heard: list[dict[str, Any]]) -> Any:
    while True:
        heard.append(said.get(timeout=SECONDS))
        if heard[-1]["kind"] == kind:
            return heard[-1]["value"]


def test_client_reconnects_after_restart(published: Published, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = environment(f"http://127.0.0.1:{port}", tmp_path / "home", published)
    heard: list[dict[str, Any]] = []
    with node_client(published, env) as said:
        for number in (1, 2):
            with live_gateway(tmp_path, scripted_config(), arguments=("--port", str(port))):
                assert wait_for(said, "hello", heard)["protocol"] == 4
                outcome = wait_for(said, "outcome", heard)
                assert outcome["result"]["payloads"][0]["text"] == f"run {number}"
                history = wait_for(said, "history", heard)
                assert len(history["messages"]) == 2 * number
    events = [one["value"] for one in heard if one["kind"] == "event"]
    finals = [event for event in events if event["event"] == "chat" and event["payload"]["state"] == "final"]
    assert [event["payload"]["runId"] for event in finals] == ["run-1", "run-2"]
    assert [one for one in heard if one["kind"] in ("gap", "error")] == []
    assert {"code": 1012, "reason": "service restart"} in [one["value"] for one in heard if one["kind"] == "close"]
