"""Shutdown while a command runs: it may finish within the grace period, and leaves no process behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from support.chat import ask, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

#: A command and its child, both of which ignore SIGTERM.
STUBBORN = "trap '' TERM; (trap '' TERM HUP; exec sleep 300) & echo $$ $! > pids; wait"
KEY = {"x-openclaw-session-key": "long"}


@pytest.fixture
def config(upstream: Upstream, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "workspace").mkdir()
    config = stubbed_config(upstream.url, "stub/play", defaults={"workspace": str(tmp_path / "workspace")})
    return {**config, "tools": {"profile": "full"}}


def begin(running: LiveGateway) -> Callable[[], httpx.Response]:
    """Start a streaming request that runs the command; returns a function that waits for the response."""
    answers: list[httpx.Response] = []

    def follow() -> None:
        with running.client(timeout=60) as client:
            answers.append(ask(client, "run it", stream=True, headers=KEY))

    asking = threading.Thread(target=follow)
    asking.start()

    def answer() -> httpx.Response:
        asking.join(60)
        return answers[0]

    return answer


def processes_of(workspace: Path) -> list[psutil.Process]:
    until(lambda: (workspace / "pids").exists() and (workspace / "pids").read_text().endswith("\n"))
    return [psutil.Process(int(pid)) for pid in (workspace / "pids").read_text().split()]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("insisting", [False, True])
def test_command_does_not_outlive_the_grace_period_or_a_second_signal(
    upstream: Upstream, tmp_path: Path, config: dict[str, Any], *, insisting: bool, workers: int
) -> None:
    upstream.answers["play"] = Play(calls(("exec", {"command": STUBBORN}), text="Let me run it."), calls(text="Again?"))
    arguments = ("--grace", "600" if insisting else "3", "--workers", str(workers))
    with live_gateway(tmp_path / "gateway", config, arguments=arguments) as running:
        answer = begin(running)
        processes = processes_of(tmp_path / "workspace")
        running.process.send_signal(signal.SIGTERM)
        time.sleep(1.1)
        assert running.process.poll() is None
        assert all(process.is_running() for process in processes)
        assert running.stop(seconds=60) == 0 if insisting else running.process.wait(60) == 0
        assert not any(process.is_running() for process in processes)
    assert "Let me run it." in answer().text
    assert '"code":"run_aborted"' in answer().text
    with live_gateway(tmp_path / "gateway", config) as running, running.client() as client:
        assert text_of(ask(client, "and?", headers=KEY)) == "Again?"
    said = [message["content"] for message in upstream.requests[-1].body["messages"] if message["role"] != "tool"]
    assert said == ["run it", "Let me run it.", "and?"]


def test_command_that_ends_within_the_grace_period_is_awaited(
    upstream: Upstream, tmp_path: Path, config: dict[str, Any]
) -> None:
    command = "echo $$ > pids; while test ! -e go; do sleep 0.05; done; echo done"
    upstream.answers["play"] = Play(calls(("exec", {"command": command})), calls(text="It is done."))
    with live_gateway(tmp_path / "gateway", config) as running:
        answer = begin(running)
        assert processes_of(tmp_path / "workspace")
        running.process.send_signal(signal.SIGTERM)
        until(lambda: "Stopping: 1 still running, waiting 30 s at most" in running.output)
        (tmp_path / "workspace" / "go").touch()
        assert running.process.wait(60) == 0
    assert "It is done." in answer().text
