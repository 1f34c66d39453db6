"""Codex CLI, as it is configured by default, works with a scripted model behind a live gateway."""

from __future__ import annotations

import base64
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

[model_providers.openclaw]
name = "OpenClaw Gateway"
base_url = "{url}/v1"
env_key = "OPENCLAW_GATEWAY_TOKEN"
wire_api = "responses"
"""
SECONDS = 120
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_codex_edits_a_file(upstream: Upstream, clients: Clients, tmp_path: Path) -> None:
    upstream.answers["coder"] = Play(
        calls(("exec_command", {"cmd": "sed -i s/old/new/ note.txt"}), text="I edit it."),
        calls(("multi_agent_v1__close_agent", {"target": "nobody"}), ("view_image", {"path": "picture.png"})),
        calls(text="It is edited."),
    )
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (work / "note.txt").write_text("old", encoding="utf-8")
    (work / "picture.png").write_bytes(PICTURE)
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
    *_, called, closed, viewed, picture = upstream.requests[-1].body["messages"]
    assert [call["function"]["name"] for call in called["tool_calls"]] == ["multi_agent_v1__close_agent", "view_image"]
    assert "nobody" in closed["content"]  # the error of Codex's own tool
    assert "below" in viewed["content"]
    assert [part["type"] for part in picture["content"]] == ["image_url"]
