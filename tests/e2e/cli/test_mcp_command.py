"""`openclaw mcp` and the states of MCP servers that operators see."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import support
from click.testing import CliRunner
from support.command import Home
from support.live import live_gateway, scripted_config
from support.polling import until

from service.cli import openclaw
from service.config.secrets import MASK

RAW_SERVER = str(Path(support.__file__).with_name("mcp_raw_server.py"))


def with_servers() -> dict[str, Any]:
    config = scripted_config()
    config["mcp"] = {
        "servers": {
            "raw": {"command": sys.executable, "args": [RAW_SERVER, "wild"], "env": {"SECRET": "${NOT_SET}"}},
            "gone": {"command": "/nowhere/at-all"},
        }
    }
    config["tools"] = {"alsoAllow": ["raw__*", "gone__*"]}
    return config


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path, {})
    home.write(with_servers())
    return home


def test_servers_are_listed_without_their_secrets(home: Home) -> None:
    done = home.run("mcp", "list", "--json")
    assert (done.status, done.err) == (0, "")
    assert [(one["name"], one["agents"]) for one in done.json["servers"]] == [
        ("raw", ["main", "beta"]),
        ("gone", ["main", "beta"]),
    ]
    assert "/nowhere/at-all" in home.run("mcp", "list").out


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:LEAK@host/mcp?token=LEAK", f"http://{MASK}@host/mcp?{MASK}"),
        ("https://LEAK@host:8443/mcp", f"https://{MASK}@host:8443/mcp"),
        ("https://host/mcp?LEAK", f"https://host/mcp?{MASK}"),
        ("https://host/mcp", "https://host/mcp"),
    ],
)
def test_addresses_of_servers_are_masked_as_the_configuration_is(home: Home, url: str, shown: str) -> None:
    home.write(scripted_config() | {"mcp": {"servers": {"far": {"url": url}}}})
    listed, as_text = home.run("mcp", "list", "--json"), home.run("mcp", "list").out
    assert listed.json["servers"][0]["address"] == shown
    assert shown in as_text.split()
    assert home.run("config", "get", "mcp", "--json").json["servers"]["far"]["url"] == shown


def test_unreachable_server_is_named_by_its_address_without_secrets(home: Home) -> None:
    config = with_servers()
    config["mcp"]["servers"] = {"away": {"url": "http://127.0.0.1:9/mcp?key=hidden-key"}}
    home.write(config)
    done = home.run("mcp", "test")
    assert done.status == 1
    assert done.out.startswith("away: http://127.0.0.1:9/mcp: ")
    assert "hidden-key" not in done.out + done.err


def test_servers_are_tried_and_failures_end_with_1(home: Home) -> None:
    done = home.run("mcp", "test", "--json", NOT_SET="now it is")
    raw, gone = done.json["servers"]
    assert (done.status, done.json["ok"]) == (1, False)
    assert raw["ok"]
    assert "bare" in raw["tools"]
    assert "not an executable file" in gone["problem"]
    assert gone["problem"].count("/nowhere/at-all") == 1
    alone = home.run("mcp", "test", "raw", NOT_SET="now it is")
    assert (alone.status, alone.out.startswith("raw: ")) == (0, True)
    assert home.run("mcp", "test", "nobody", NOT_SET="now it is").status == 1


def test_missing_package_is_noted_by_validation(home: Home, tmp_path: Path) -> None:
    assert "mcp.servers: " not in home.run("config", "validate", NOT_SET="now it is").err
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['mcp'] = None")  # as if it were not installed
    done = home.run("config", "validate", "--json", NOT_SET="now it is", PYTHONPATH=str(tmp_path))
    assert done.status == 0
    (note,) = [notice for notice in done.json["notices"] if notice.startswith("mcp.servers: ")]
    assert "need a package that is not installed. Run `pip install" in note


def test_states_are_shown_by_readiness_and_status(tmp_path: Path) -> None:
    config = with_servers()
    del config["mcp"]["servers"]["raw"]["env"]
    with live_gateway(tmp_path / "home", config) as running, running.client() as client:
        wanted = {"raw": "connected", "gone": "failed"}
        until(lambda: states_of(client.get("/readyz").json()) == wanted)
        home = Home(tmp_path, {"OPENCLAW_GATEWAY_URL": running.url})
        home.write(config)
        report = home.run("status", "--json", OPENCLAW_GATEWAY_TOKEN="a-token-for-tests").json
        assert {one["name"]: one["state"] for one in report["mcpServers"]} == wanted
        began = time.monotonic()
        assert client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]}).is_success
        assert time.monotonic() - began < 4  # the run does not wait for the server that is down


def states_of(ready: Any) -> dict[str, str]:
    return {one["name"]: one["state"] for one in ready["details"]["mcp_servers"]}


@pytest.mark.parametrize("group", [name for name in [*openclaw.load_all(), ""] if name != "completion"])
def test_help_cuts_no_summary(group: str) -> None:
    shown = CliRunner().invoke(openclaw, [*filter(None, [group]), "--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert not [line for line in shown.output.splitlines() if line.endswith("...") and not line.startswith("Usage:")]
