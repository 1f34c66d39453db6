"""`openclaw setup` on a real terminal: questions, a file that works, and a call to paste."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import Home
from support.live import live_gateway
from support.terminal import Terminal
from support.upstream import Upstream

from service.config.source import parse_json5

KEY = "a-${key}-of-the-provider"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, {"OLLAMA_HOST": "127.0.0.1:9"})


def setup_of(home: Home, *arguments: str, **env: str) -> Terminal:
    return Terminal(["setup", *arguments], home.directory, home.environment(**env))


def test_answers_make_a_gateway_that_answers_the_printed_call(home: Home, module_upstream: Upstream) -> None:
    terminal = setup_of(home)
    terminal.type_after("Provider [local]", "nobody")
    terminal.type_after("Provider [local]", "other")
    terminal.type_after("URL that ends before /chat/completions", module_upstream.url.removeprefix("http://"))
    terminal.type_after("It must be an http:// or https:// URL with a host.", module_upstream.url)
    terminal.type_after("API key", KEY)
    terminal.type_after("Model", "ok")
    terminal.type_after("endpoint on? [Y/n]", "")
    assert terminal.wait() == 0, terminal.shown
    assert KEY not in terminal.shown
    token = home.run("config", "get", "gateway.auth.token").out.strip()
    assert token not in terminal.shown
    assert f"The token is in {home.config_path}: openclaw config get gateway.auth.token" in terminal.shown
    call = terminal.shown[terminal.shown.index("curl ") :]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    config = parse_json5(home.config_path.read_text(), str(home.config_path))
    with live_gateway(home.directory / "live", config) as gateway:
        assert "http://127.0.0.1:18789/v1" in call
        done = subprocess.run(
            ["bash", "-c", call.replace("http://127.0.0.1:18789", gateway.url)],
            env=home.environment(PATH=path),
            capture_output=True,
            text=True,
            check=True,
        )
    assert '"object":"chat.completion"' in done.stdout
    assert module_upstream.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_key_of_environment_is_not_asked_for_and_endpoint_may_stay_off(home: Home) -> None:
    terminal = setup_of(home, "--profile", "mine", ANTHROPIC_API_KEY="k")
    terminal.type_after("Provider [anthropic]", "")
    terminal.type_after("The key is that of ANTHROPIC_API_KEY", "")
    terminal.type_after("endpoint on? [Y/n]", "n")
    assert terminal.wait() == 0, terminal.shown
    assert "openclaw --profile mine gateway" in terminal.shown
    assert "curl" not in terminal.shown
    assert home.run("config", "get", "agents.defaults.model", "--profile", "mine").out.startswith("anthropic/")
    assert home.run("config", "get", "models.providers", "--profile", "mine").status == 1


def test_end_of_input_writes_nothing_and_no_input_asks_nothing(home: Home) -> None:
    terminal = setup_of(home)
    terminal.type_after("Provider [local]", "\x04")
    assert terminal.wait() != 0
    assert not home.config_path.exists()
    assert setup_of(home, "--no-input").wait() == 0
    assert home.config_path.exists()
