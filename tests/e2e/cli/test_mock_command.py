"""`openclaw mock` and the fixture for pytest, as the documentation shows them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import ROOT, blocks_of

from service.core.errors import KINDS

EVERYTHING = """

import httpx


@pytest.fixture(scope="session")
def openclaw_mock_arguments():
    return ("--model", "NAME")


def test_arguments_and_endpoints(openclaw_mock):
    headers = {"Authorization": f"Bearer {openclaw_mock.token}"}
    with httpx.Client(base_url=openclaw_mock.base_url, headers=headers) as http:
        assert http.post("/responses", json={"input": "hi"}).json()["output"][0]["content"][0]["text"] == "1 2 3 "
        assert len(http.post("/embeddings", json={"model": "openclaw", "input": "hi"}).json()["data"]) == 1
        assert http.get("/tools").status_code == 200
        assert http.get("/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
"""


def run_pytest(text: str, directory: Path) -> str:
    (directory / "test_documented.py").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "service/server/pytest_plugin.py", directory / "own_plugin.py")
    plugins = ("no:cacheprovider", "no:openclaw", "own_plugin")  # not the one that is installed
    command = [sys.executable, "-m", "pytest", "-q", *(word for name in plugins for word in ("-p", name))]
    environment = {**os.environ, "OPENCLAW_GATEWAY_TOKEN": "of another gateway"}
    ended = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_documented_tests_pass_and_arguments_apply(tmp_path: Path) -> None:
    [documented] = [
        block.text for block in blocks_of(ROOT / "docs" / "testing-with-the-mock.md") if "pytest" in block.text
    ]
    assert "provider_unavailable" in KINDS
    assert "2 passed" in run_pytest(documented, tmp_path)
    for name in ("count-3", "scripted/count-3"):
        assert "1 passed" in run_pytest("import pytest\n" + EVERYTHING.replace("NAME", name), tmp_path)


@pytest.mark.parametrize(
    "model", ["nonsense", "scripted/nonsense", "count-x", "fail-nonsense", "fail-run_events_gone", ""]
)
def test_model_that_there_is_not_ends_the_command(model: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "mock", "--model", model]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "Invalid value for --model: Unknown" in ended.stderr
    assert "Use one of" in ended.stderr
