"""Codex CLI edits a file with a scripted model behind a live gateway."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.live import TOKEN, live_gateway, stubbed_config
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

from interop_responses.conftest import Clients

CONFIG = """
model = "openclaw"
model_provider = "openclaw"
web_search = "disabled"

[features]
multi_agent = false

[model_providers.openclaw]
name = "OpenClaw Gateway"
base_url = "{url}/v1"
env_key = "OPENCLAW_GATEWAY_TOKEN"
wire_api = "responses"
"""
SECONDS = 120


def test_codex_edits_a_file(upstream: Upstream, clients: Clients, tmp_path: Path) -> None:
    command = {"cmd": "sed -i s/old/new/ note.txt"}
    upstream.answers["coder"] = Play(calls(("exec_command", command), text="I edit it."), calls(text="It is edited."))
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (work / "note.txt").write_text("old", encoding="utf-8")
    with live_gateway(tmp_path / "gateway", stubbed_config(upstream.url, "stub/coder", apiKey="key")) as gateway:
        (home / "config.toml").write_text(CONFIG.format(url=gateway.url), encoding="utf-8")
        program = clients.modules / "@openai" / "codex" / "bin" / "codex.js"
        arguments = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "Renew the note."]
        done = subprocess.run(
            [str(clients.node), str(program), *arguments],
            cwd=work,
            env={**os.environ, "CODEX_HOME": str(home), "OPENCLAW_GATEWAY_TOKEN": TOKEN},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert (work / "note.txt").read_text(encoding="utf-8") == "new"
    assert "It is edited." in done.stdout
