"""Misuse of the command line and broken output: exit codes, one line of text, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.command import Home
from support.live import scripted_config

from service.cli import openclaw


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("gateway", "--port", "80000"), "--port"),
        (("gateway", "--port", "-1"), "--port"),
        (("gateway", "--bind", "foo"), "--bind"),
        (("gateway", "--profile", "a b"), "--profile"),
        (("--profile", "../x", "gateway"), "--profile"),
        (("config", "file", "--profile", ""), "--profile"),
        (("--dev", "status", "--profile", "x"), "--profile"),
        (("agent", "--message", "x", "--session-key", "a\udcff"), "--session-key"),
        (("agent", "--message", "x", "--agent", "a\udcff"), "--agent"),
        (("agent", "--message", "x", "--session-id", "\udc80"), "--session-id"),
        (("agent", "--message", "x", "--model", "a/\udcff"), "--model"),
        (("sessions", "abort", "a\udcff"), "KEY"),
        (("sessions", "abort", "x", "--agent", "a\udcff"), "--agent"),
    ],
)
def test_misuse_exits_with_2_and_names_option(tmp_path: Path, arguments: tuple[str, ...], option: str) -> None:
    done = CliRunner().invoke(openclaw, arguments, env={"HOME": str(tmp_path), "OPENCLAW_STATE_DIR": None})
    assert done.exit_code == 2
    assert option in done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OPENCLAW_GATEWAY_PORT", "abc"),
        ("OPENCLAW_GATEWAY_PORT", "99999"),
        ("OPENCLAW_GATEWAY_PORT", "-1"),
        ("OPENCLAW_GATEWAY_PORT", "1.5"),
        ("OPENCLAW_GATEWAY_URL", "nonsense"),
        ("OPENCLAW_GATEWAY_URL", "http://a..b"),
        ("OPENCLAW_GATEWAY_URL", f"http://{'a' * 64}/"),
        ("OPENCLAW_GATEWAY_URL", "http://127.0.0.1:99999"),
        ("OPENCLAW_GATEWAY_URL", "http://127.0.0.1/\u00e9"),
        ("OPENCLAW_GATEWAY_TOKEN", "a\nb"),
        ("OPENCLAW_GATEWAY_PASSWORD", "a\udcff"),
    ],
)
def test_malformed_variable_is_named_by_every_client_command(tmp_path: Path, variable: str, value: str) -> None:
    home = Home(tmp_path, {variable: value})
    home.write({})
    for command in ("status", "health", "agent hi", "runs list", "sessions abort x", "doctor --no-calls"):
        done = home.run(*command.split())
        assert done.status in (1, 2)
        assert variable in done.out + done.err, command


@pytest.mark.parametrize("port", ["abc", 99_999, 1.5])
def test_malformed_port_of_the_file_is_an_ordinary_error(tmp_path: Path, port: object) -> None:
    home = Home(tmp_path, {})
    home.write({"gateway": {"port": port}})
    for command in ("status", "health", "agent hi"):
        done = home.run(*command.split())
        assert (done.status, "gateway.port" in done.out + done.err) == (1, True)


def test_state_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path, {"OPENCLAW_CONFIG_PATH": str(tmp_path / ".openclaw" / "openclaw.json")})
    home.write({})
    file = tmp_path / "file"
    file.write_text("")
    for variable, value in (("OPENCLAW_STATE_URL", "nonsense"), ("OPENCLAW_STATE_DIR", str(file))):
        done = home.run("sessions", "list", **{variable: value})
        assert done.status == 1
        assert (variable if variable.endswith("URL") else value) in done.err


def test_undecodable_message_gets_replacement_characters(tmp_path: Path) -> None:
    config = tmp_path / "openclaw.json"
    config.write_text(json.dumps(scripted_config()))
    config.chmod(0o600)
    env = {
        **os.environ,
        "HOME": str(tmp_path),
        "OPENCLAW_CONFIG_PATH": str(config),
        "OPENCLAW_STATE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "service", "agent", "--local", "--message"]
    for message, given in ((b"caf\xe9", b""), (b"-", b"caf\xe9")):
        done = subprocess.run([*command, message], env=env, input=given, capture_output=True, timeout=90, check=False)
        assert (done.returncode, done.stdout.decode()) == (0, "caf\ufffd\n"), done.stderr


@pytest.mark.parametrize("target", ["full", "closed"])
@pytest.mark.parametrize("arguments", ["config schema", "--help", "--version", "config --help", "completion bash"])
def test_full_output_is_reported_and_closed_pipe_is_silent(tmp_path: Path, target: str, arguments: str) -> None:
    command = [sys.executable, "-m", "service", *arguments.split()]
    env = {**os.environ, "HOME": str(tmp_path)}
    with Path("/dev/full").open("wb") as full:
        reader, writer = os.pipe()
        os.close(reader)
        output = full.fileno() if target == "full" else writer
        done = subprocess.run(command, env=env, stdout=output, stderr=subprocess.PIPE, timeout=90, check=False)
        os.close(writer)
    assert done.returncode == 1
    full_error = b"Error: The output cannot be written: No space left on device.\n"
    assert done.stderr == (full_error if target == "full" else b"")


def test_command_without_standard_output_ends_normally(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "service", "config", "schema"]
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, env=env, stderr=subprocess.PIPE, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
