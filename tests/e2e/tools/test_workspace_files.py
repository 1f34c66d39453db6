"""Hostile workspace files that every run reads, through a live gateway."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chat import ask, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.upstream import Upstream
from support.workspace_tools import SECRET, make_workspace

IMPATIENT_SECONDS = 5


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path)


@pytest.fixture
def agent(upstream: Upstream, workspace: Path, tmp_path: Path) -> Iterator[LiveGateway]:
    config = stubbed_config(upstream.url, defaults={"workspace": str(workspace)})
    with live_gateway(tmp_path / "gateway", config) as running:
        yield running


def test_special_file_of_workspace_is_not_read_and_does_not_block(
    agent: LiveGateway, upstream: Upstream, workspace: Path
) -> None:
    os.mkfifo(workspace / "AGENTS.md")
    (workspace / "SOUL.md").symlink_to(workspace.parent / "outside" / "secret.txt")
    (workspace / "IDENTITY.md").symlink_to("/dev/ptmx")
    (workspace / "kept.md").write_text("I am kept here.")
    (workspace / "USER.md").symlink_to("kept.md")
    (workspace / "TOOLS.md").write_bytes(b"\xef\xbb\xbfUse them \xff well. " + "ừ".encode() * 30_000)
    with agent.client(timeout=IMPATIENT_SECONDS) as client:
        text_of(ask(client, "hi"))
        assert client.get("/healthz").status_code == 200
    told = upstream.requests[-1].body["messages"][0]["content"]
    assert SECRET not in told
    assert told.startswith("# USER.md\n\nI am kept here.\n\n# TOOLS.md\n\nUse them \ufffd well. ừừừ")
    assert told.endswith("ừ\n[TOOLS.md is longer; the rest is left out]")
