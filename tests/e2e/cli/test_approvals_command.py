"""`openclaw approvals`, beside a running gateway and for a run without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
from support.approvals import wait_for_pending
from support.chat import ask, text_of
from support.live import live_gateway, stubbed_config
from support.polling import until
from support.preloaded import Ended, run
from support.processes import started
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

WRITE = ("write", {"path": "new.txt", "content": "\u001b[2J\u202ex"})


def config_of(directory: Path, upstream: Upstream) -> dict[str, Any]:
    agents = [{"id": "main", "workspace": str(directory), "tools": {"profile": "full", "approvals": {"write": "ask"}}}]
    return stubbed_config(upstream.url, "stub/play", agents=agents)


def environment(directory: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")},
        "OPENCLAW_CONFIG_PATH": str(directory / "openclaw.json"),
        "OPENCLAW_STATE_DIR": str(directory / "state"),
        "USER": "ann",
        "LOGNAME": "ann",
    }


def openclaw(directory: Path, *arguments: str) -> Ended:
    return run(arguments, cwd=directory, env=environment(directory))


def listed(directory: Path) -> list[dict[str, Any]]:
    done = openclaw(directory, "approvals", "list", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["data"]
    return found


def test_approval_is_listed_and_decided(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers["play"] = Play(calls(WRITE), calls(text="Done."))
    with live_gateway(tmp_path, config_of(tmp_path, upstream)) as gateway, gateway.client(timeout=180) as client:
        assert openclaw(tmp_path, "approvals", "list").stdout == "No approval is pending.\n"
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, client, "go", headers={"x-openclaw-session-key": "cli"})
            approval = wait_for_pending(client)
            assert listed(tmp_path) == [approval]
            shown = openclaw(tmp_path, "approvals", "list").stdout
            assert approval["id"] in shown
            assert "agent:main:cli" in shown
            assert "\u202e" not in shown
            assert openclaw(tmp_path, "approvals", "resolve", approval["id"], "perhaps").returncode == 2
            done = openclaw(tmp_path, "approvals", "resolve", approval["id"], "allow-once")
            assert (done.returncode, done.stdout) == (0, f"Allowed write of {approval['run_id']}.\n"), done.stderr
            assert text_of(answer.result()) == "Done."
        messages = client.get("/v1/sessions/cli").json()["messages"]
    assert [message["approval"]["decided_by"] for message in messages if message["approval"]] == ["cli ann"]
    again = openclaw(tmp_path, "approvals", "resolve", approval["id"], "deny", "--json")
    assert again.returncode == 1
    assert json.loads(again.stdout)["error"]["code"] == "approval_closed"
    unknown = openclaw(tmp_path, "approvals", "resolve", "nobody", "deny", "--json")
    assert json.loads(unknown.stdout)["error"]["code"] == "approval_not_found"


def test_run_without_gateway_is_decided_by_other_process(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers["play"] = Play(calls(WRITE), calls(text="Done."))
    (tmp_path / "openclaw.json").write_bytes(orjson.dumps(config_of(tmp_path, upstream)))
    command = [sys.executable, "-m", "service", "agent", "--local", "--message", "go"]
    with started(command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as agent:
        found = until(lambda: (tmp_path / "state").exists() and listed(tmp_path))
        assert openclaw(tmp_path, "approvals", "resolve", found[0]["id"], "deny").stdout.startswith("Denied write")
        output, _ = agent.communicate(timeout=60)
    assert output.strip() == "Done."
    assert not (tmp_path / "new.txt").exists()
