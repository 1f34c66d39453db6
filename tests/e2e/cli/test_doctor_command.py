"""`openclaw doctor`: what it finds, with its remedy and its exit status."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import support
from support.command import Done, Home
from support.live import TOKEN, live_gateway, scripted_config

RAW_SERVER = str(Path(support.__file__).with_name("mcp_raw_server.py"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return Home(tmp_path, {"OPENCLAW_GATEWAY_PORT": str(port)})


def findings(done: Done) -> dict[str, tuple[str, str]]:
    """The worst status of each subject, with its text and remedy."""
    order = ("ok", "warning", "error")
    found: dict[str, tuple[str, str]] = {}
    for one in sorted(done.json["findings"], key=lambda one: order.index(one["status"])):
        found[one["subject"]] = one["status"], f"{one['text']} {one['remedy']}"
    return found


def test_complete_set_up_ends_with_0_and_is_not_changed(home: Home) -> None:
    config = scripted_config()
    config["mcp"] = {"servers": {"raw": {"command": sys.executable, "args": [RAW_SERVER, "wild"], "sandbox": "auto"}}}
    config["tools"] = {"alsoAllow": ["raw__*"]}
    home.write(config)
    before = sorted(home.directory.rglob("*"))
    done = home.run("doctor", "--json")
    assert done.status == 0, done.out
    found = findings(done)
    assert {status for status, _ in found.values()} == {"ok"}
    assert "scripted/echo answered in" in found["provider scripted"][1]
    assert "tools" in found["MCP server raw"][1]
    assert "is free for one" in found["gateway"][1]
    assert "set up by the first start" in found["database"][1]
    assert sorted(home.directory.rglob("*")) == before
    assert "ok       configuration: " in home.run("doctor", "--no-calls").out
    assert "and was not" in findings(home.run("doctor", "--no-calls", "--json"))["provider scripted"][1]


def test_missing_configuration_ends_with_2_and_names_setup(home: Home) -> None:
    done = home.run("doctor")
    assert (done.status, "`openclaw setup`" in done.out) == (2, True)


@pytest.mark.parametrize("options", [("--dev",), ("--profile", "two")])
def test_every_command_names_its_profile_in_the_way_to_set_it_up(home: Home, options: tuple[str, ...]) -> None:
    setup = f"`openclaw {' '.join(options)} setup`"
    for command in ("doctor", "status", "health", "logs"):
        done = home.run(*options, command)
        assert setup in done.out + done.err


def test_warnings_alone_end_with_1(home: Home) -> None:
    config = scripted_config()
    config["gateway"]["http"]["endpoints"]["chatCompletions"]["enabled"] = False
    home.write(config)
    done = home.run("doctor", "--json")
    status, text = findings(done)["configuration"]
    assert (done.status, status) == (1, "warning")
    assert "openclaw config set gateway.http.endpoints.chatCompletions.enabled true" in text


def broken_config() -> dict[str, Any]:
    config = scripted_config(trustedProxies=["0.0.0.0/0"])
    config["agents"]["defaults"]["model"] = {
        "primary": "scripted/fail-provider_authentication_failed",
        "fallbacks": ["away/m", "busy/fail-rate_limit_exceeded"],
    }
    providers = config["models"]["providers"]
    providers["away"] = {"baseUrl": "http://127.0.0.1:9/v1"}
    providers["busy"] = {"api": "scripted"}
    config["mcp"] = {"servers": {"gone": {"command": "/nowhere/at-all"}}}
    config["tools"] = {"alsoAllow": ["gone__*"]}
    return config


def test_every_fault_is_found_with_its_remedy(home: Home) -> None:
    home.write(broken_config())
    with sqlite3.connect(home.config_path.parent / "sessions.sqlite") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
    with socket.create_server(("127.0.0.1", int(home.env["OPENCLAW_GATEWAY_PORT"]))):
        done = home.run("doctor", "--json", HTTPS_PROXY="http://127.0.0.1:9", SSL_CERT_FILE="/nowhere.pem")
    found = findings(done)
    assert (done.status, done.json["status"]) == (2, "error")
    expected = {
        "provider scripted": ("error", "apiKey"),
        "provider away": ("error", "models.providers.away.baseUrl"),
        "provider busy": ("warning", "Try again later"),
        "MCP server gone": ("error", "mcp.servers.gone: its command"),
        "sandbox of gone": ("warning", "mcp.servers.gone.sandbox"),
        "reverse proxy": ("error", "0.0.0.0/0"),
        "database": ("error", "newer version"),
        "network": ("error", "HTTPS_PROXY"),
        "gateway": ("error", "gateway.port"),
    }
    shown = {subject: (found[subject][0], part in found[subject][1]) for subject, (_, part) in expected.items()}
    assert shown == {subject: (status, True) for subject, (status, _) in expected.items()}, done.out
    assert "/nowhere.pem" in done.out


def test_running_gateway_is_asked_with_the_secret(tmp_path: Path) -> None:
    with live_gateway(tmp_path / "live", scripted_config()) as running:
        home = Home(tmp_path, {"OPENCLAW_GATEWAY_PORT": str(running.address[1])})
        home.write(scripted_config())
        assert "is ready" in findings(home.run("doctor", "--json"))["gateway"][1]
        config = scripted_config()
        config["gateway"]["auth"]["token"] = TOKEN[::-1]
        home.write(config)
        status, text = findings(home.run("doctor", "--json"))["gateway"]
        assert (status, "gateway.auth.token" in text) == ("error", True)


def without_remedy(done: Done) -> list[str]:
    return [one["text"] for one in done.json["findings"] if one["status"] != "ok" and not one["remedy"]]


def test_what_keeps_the_gateway_from_listening_or_logging_is_found(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        config = scripted_config()
        config["gateway"]["http"]["endpoints"]["metrics"] = {"enabled": True, "port": taken}
        config["logging"] = {"file": "/proc/x/y.log"}
        home.write(config)
        done = home.run("doctor", "--json", "--no-calls")
        found = findings(done)
        metrics = (
            "gateway.http.endpoints.metrics.port: the gateway cannot listen",
            "Set gateway.http.endpoints.metrics",
        )
        assert (found["gateway"][0], [part in found["gateway"][1] for part in metrics]) == ("error", [True, True])
        assert (found["log file"][0], "logging.file: /proc/x/y.log cannot be written" in found["log file"][1]) == (
            "error",
            True,
        )
        assert without_remedy(done) == []
        assert "logging.file: /proc/x/y.log cannot be written" in home.run("gateway").err
        del config["logging"]
        home.write(config)
        assert f"gateway.http.endpoints.metrics.port: cannot listen on port {taken}" in home.run("gateway").err
        config["gateway"]["port"] = taken
        home.write(config)
        for command in (("doctor",), ("config", "validate"), ("config", "set", "logging.level", "debug"), ("gateway",)):
            shown = home.run(*command)
            assert f"gateway.http.endpoints.metrics.port: {taken} is gateway.port, too" in shown.out + shown.err, shown
        del config["gateway"]["port"]
        home.write(config)
        for command in (("doctor", "--no-calls"), ("gateway",)):
            shown = home.run(*command, OPENCLAW_GATEWAY_PORT=str(taken))
            assert f"metrics.port: {taken} is the port to listen on, too" in shown.out + shown.err, shown


@pytest.mark.parametrize(
    ("path", "made", "status"),
    [
        ("logs/new/gateway.log", None, None),
        ("gateway.log", "file", None),
        ("gateway.log", "directory", "error"),
        ("file/gateway.log", "parent", "error"),
    ],
)
def test_log_file_is_tried_without_making_it(home: Home, path: str, made: str | None, status: str | None) -> None:
    config = scripted_config()
    config["logging"] = {"file": path}
    home.write(config)
    file = home.config_path.parent / path
    if made == "directory":
        file.mkdir()
    elif made is not None:
        (file if made == "file" else file.parent).write_text("kept")
    before = sorted(home.directory.rglob("*"))
    found = findings(home.run("doctor", "--no-calls", "--json"))
    assert found.get("log file", (None,))[0] == status
    assert sorted(home.directory.rglob("*")) == before


def test_remote_client_is_checked_against_its_gateway_alone(tmp_path: Path) -> None:
    with live_gateway(tmp_path / "live", scripted_config()) as running:
        home = Home(tmp_path, {})
        remote = {"url": f"ws://127.0.0.1:{running.address[1]}", "token": TOKEN}
        home.write({"gateway": {"mode": "remote", "remote": remote}})
        done = home.run("doctor", "--json")
        assert (done.status, "is ready" in findings(done)["gateway"][1]) == (0, True), done.out
        assert findings(done).keys() == {"disk", "clock", "network", "configuration", "gateway"}
        remote["token"] = TOKEN[::-1]
        home.write({"gateway": {"mode": "remote", "remote": remote}})
        status, text = findings(home.run("doctor", "--json"))["gateway"]
        assert (status, "gateway.remote.token" in text) == ("error", True)
    status, text = findings(home.run("doctor", "--json"))["gateway"]
    assert (status, "The address is from gateway.remote" in text) == ("error", True)


def test_every_warning_has_a_remedy_and_unused_providers_are_named(home: Home) -> None:
    config = scripted_config()
    config["gateway"]["auth"]["token"] = "guessed"
    config["gateway"]["bind"] = "lan"
    config["agents"]["defaults"]["workspace"] = str(home.directory / "missing")
    config["models"]["providers"]["spare"] = {"api": "scripted"}
    config["mcp"] = {"servers": {"away": {"url": "http://127.0.0.1:9/mcp"}}}
    config["tools"] = {"alsoAllow": ["away__*", "exec"], "exec": {"sandbox": "off"}}
    config["diagnostics"] = {"otel": {"enabled": True, "endpoint": "http://127.0.0.1:9"}}
    home.write(config)
    done = home.run("doctor", "--json")
    found = findings(done)
    assert without_remedy(done) == []
    assert found["provider spare"] == ("ok", "no agent uses it, and it was not asked None")
    status, text = found["MCP server away"]
    assert (status, "http://127.0.0.1:9/mcp: " in text, "mcp.servers.away: its url" in text) == ("error", True, True)
    status, text = found["traces"]
    assert (status, "127.0.0.1 port 9" in text, "diagnostics.otel.endpoint" in text) == ("warning", True, True)
    with socket.create_server(("127.0.0.1", 0)) as collector:
        url = f"http://127.0.0.1:{collector.getsockname()[1]}"
        del config["diagnostics"]["otel"]["endpoint"]
        home.write(config)
        done = home.run("doctor", "--json", "--no-calls", OTEL_EXPORTER_OTLP_ENDPOINT=url)
        assert findings(done)["traces"][0] == "ok"


def test_state_directory_that_is_a_file_is_named_as_such(home: Home) -> None:
    home.write(scripted_config())
    file, link = home.directory / "file", home.directory / "link"
    file.write_text("")
    link.symlink_to("nowhere")
    for place, problem in ((file, "not a directory"), (file / "below", "not a directory"), (link, "a link to nothing")):
        found = findings(
            home.run(
                "doctor",
                "--json",
                "--no-calls",
                OPENCLAW_STATE_DIR=str(place),
                OPENCLAW_CONFIG_PATH=str(home.config_path),
            )
        )
        assert found["disk"][0] == "error"
        assert f"{link if place == link else file} is {problem}" in found["disk"][1]


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_database_that_another_user_has_written_is_found(home: Home, suffix: str) -> None:
    home.write(scripted_config())
    assert home.run("keys", "create", "anna").status == 0
    file = home.config_path.with_name(f"sessions.sqlite{suffix}")
    file.touch()
    file.chmod(0o400)
    if os.access(file, os.W_OK):
        pytest.skip("this user may write everything")
    status, text = findings(home.run("doctor", "--json", "--no-calls"))["database"]
    assert (status, f"{file} cannot be written by this user" in text) == ("error", True)


def test_damaged_database_is_found_with_its_backup_as_the_remedy(home: Home) -> None:
    home.write(scripted_config())
    home.config_path.with_name("sessions.sqlite").write_bytes(b"no database at all" * 100)
    status, text = findings(home.run("doctor", "--json", "--no-calls"))["database"]
    assert (status, "sessions.sqlite: file is not a database" in text) == ("error", True)
    assert "openclaw restore" in text


def test_model_whose_key_is_missing_is_not_blamed_on_its_host(home: Home) -> None:
    home.write({**scripted_config(), "agents": {"defaults": {"model": "openai/gpt-5-mini"}}})
    status, text = findings(home.run("doctor", "--json"))["provider openai"]
    assert (status, "set OPENAI_API_KEY" in text, "baseUrl" in text) == ("error", True, False)


@pytest.mark.parametrize(
    ("model", "subject", "kept"),
    [("openai/gpt-5-mini", "provider openai", "OPENAI_API_KEY"), ("nosuch/m", "configuration", "agents.list[1].model")],
)
def test_missing_provider_is_told_once(home: Home, model: str, subject: str, kept: str) -> None:
    config = scripted_config()
    config["agents"]["list"] = [{"id": "main"}, {"id": "second", "model": model}]
    home.write(config)
    told = [one for one in home.run("doctor", "--json").json["findings"] if model in one["text"]]
    assert [(one["subject"], one["status"], kept in one["text"]) for one in told] == [(subject, "error", True)]


def test_mcp_server_that_no_agent_may_use_is_not_started(home: Home) -> None:
    started = home.directory / "started"
    config = scripted_config()
    config["mcp"] = {"servers": {"idle": {"command": "touch", "args": [str(started)], "sandbox": "off"}}}
    home.write(config)
    found = findings(home.run("doctor", "--json"))
    assert found["MCP server idle"] == ("ok", "no agent may use its tools, and it was not tried None")
    assert (started.exists(), "sandbox of idle" in found) == (False, False)
