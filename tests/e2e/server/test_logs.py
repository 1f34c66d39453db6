"""The log of a live gateway: a line for each run and each tool call, as text and as JSON, without any content."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.api_keys import create_key
from support.chat import ask, chunks_of, error_of, streamed_text
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.operator_client import operator_client
from support.polling import until
from support.preloaded import Ended, run, start
from support.scripted_upstream import Play, calls
from support.upstream import Exchange, Upstream

MARKER = "Marzipan7731"
PROVIDERS_KEY = "the-providers-own-key"
FILE = "logs/gateway.log"


@pytest.fixture(scope="module")
def config(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    agent = {"id": "main", "workspace": str(tmp_path_factory.mktemp("workspace")), "tools": {"profile": "full"}}
    made = stubbed_config(module_upstream.url, "stub/play", agents=[agent], apiKey=PROVIDERS_KEY)
    return {**made, "logging": {"file": FILE}}


@pytest.fixture(scope="module")
def gateway(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("logs"), config) as running:
        yield running
        files = path_of(running).parent.glob("gateway.log*")
        written = running.output + "".join(path.read_text() for path in files)
        for content in ("Traceback", MARKER, MARKER[:9], TOKEN, PROVIDERS_KEY):
            assert content not in written


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as connected:
        yield connected


def path_of(gateway: LiveGateway) -> Path:
    return gateway.state_dir / FILE


def entries(gateway: LiveGateway, logger: str, **wanted: str) -> list[dict[str, Any]]:
    """The entries of the file by `logger` with these members."""
    found = [orjson.loads(line) for line in path_of(gateway).read_bytes().splitlines()]
    return [one for one in found if one["logger"] == f"openclaw.{logger}" and wanted.items() <= one.items()]


def entry(gateway: LiveGateway, logger: str, **wanted: str) -> dict[str, Any]:
    """The only such entry, which may be yet to come."""
    until(lambda: entries(gateway, logger, **wanted))
    (found,) = entries(gateway, logger, **wanted)
    return found


def environment(gateway: LiveGateway) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")},
        "OPENCLAW_CONFIG_PATH": str(gateway.directory / "openclaw.json"),
        "OPENCLAW_STATE_DIR": str(gateway.state_dir),
    }


def openclaw(gateway: LiveGateway, *arguments: str) -> Ended:
    return run(arguments, cwd=gateway.directory, env=environment(gateway))


def rejecting(status: int, message: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.json(status, {"error": {"message": message}})


def test_run_has_one_line_and_so_has_each_tool_call(
    gateway: LiveGateway, client: httpx.Client, upstream: Upstream
) -> None:
    secret, key_id = create_key(gateway.state_dir)
    upstream.answers["play"] = Play(calls(("read", {"path": MARKER})), calls(text=f"No {MARKER}."))
    headers = {"authorization": f"Bearer {secret}", "x-request-id": "find-me", "x-openclaw-session-key": "logged"}
    answer = ask(client, f"Read {MARKER}.", headers=headers)
    run_id, session = answer.json()["id"], answer.headers["x-openclaw-session-key"]
    line = entry(gateway, "run", run=run_id)
    assert (line["time"][-1], line["level"], line["outcome"]) == ("Z", "INFO", "ok")
    assert (line["agent"], line["protocol"], line["model"]) == ("main", "http", "stub/play")
    assert (line["session"].partition("logged")[1], line["key"], line["request_id"]) == ("logged", key_id, "find-me")
    usage = answer.json()["usage"]
    assert (line["model_calls"], line["input_tokens"]) == (2, usage["prompt_tokens"])
    assert line["output_tokens"] == usage["completion_tokens"]
    assert session
    assert entry(gateway, "access", run=run_id)["session"] == line["session"]
    called = entry(gateway, "tool", run=run_id)
    assert (called["tool"], called["outcome"], called["agent"]) == ("read", "error", "main")
    assert (called["session"], called["key"], called["request_id"]) == (line["session"], key_id, "find-me")
    assert called["duration_ms"] >= 0
    assert "arguments" not in called
    of_run = rf"INFO openclaw\.run run={run_id} outcome=ok agent=main"
    of_call = rf"INFO openclaw\.tool tool=read outcome=error .*run={run_id}"
    until(lambda: [len(re.findall(line, gateway.output)) for line in (of_run, of_call)] == [1, 1])
    assert secret not in gateway.output


def test_line_of_call_names_tool_that_agent_does_not_have(
    gateway: LiveGateway, client: httpx.Client, upstream: Upstream
) -> None:
    names = ("nosuchtool", "x" * 300, "two\nlines \ud800")
    upstream.answers["play"] = Play(calls(*((name, {}) for name in names)), calls(text="None."))
    run_id = ask(client, "hi").json()["id"]
    until(lambda: len(entries(gateway, "tool", run=run_id)) == len(names))
    called = entries(gateway, "tool", run=run_id)
    assert [one["tool"] for one in called] == ["nosuchtool", "x" * 80 + "...", "two\nlines \ufffd"]
    assert {one["outcome"] for one in called} == {"error"}
    until(lambda: "openclaw.tool tool=nosuchtool outcome=error" in gateway.output)


def test_runs_of_every_protocol_have_their_line(gateway: LiveGateway, client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["play"] = Play(*[calls(text=MARKER)] * 3)
    answer = ask(client, MARKER, stream=True)
    assert streamed_text(answer) == MARKER
    assert entry(gateway, "run", run=chunks_of(answer)[0]["id"])["protocol"] == "http"
    with operator_client(gateway) as operator:
        params = {"message": MARKER, "agentId": "main", "idempotencyKey": "of-a-socket"}
        operator.call("agent", params)
    of_socket = entry(gateway, "run", run="of-a-socket")
    assert of_socket["protocol"] == "websocket"
    opened = entry(gateway, "access", request_id=of_socket["request_id"])
    assert (opened["method"], opened["status"]) == ("GET", 101)
    done = openclaw(gateway, "agent", "--local", "--message", MARKER)
    assert (done.stdout.strip(), done.stderr) == (MARKER, "")
    assert entry(gateway, "run", protocol="local")["outcome"] == "ok"


def test_line_says_why_run_failed_in_providers_words_without_message(
    gateway: LiveGateway, client: httpx.Client, upstream: Upstream
) -> None:
    upstream.answers["quoting"] = rejecting(400, f"Unknown stop word {MARKER}: '{MARKER} in quotes', \\n{MARKER[:9]}")
    refused = ask(client, f"{MARKER} please", headers={"x-openclaw-model": "stub/quoting", "x-request-id": "quoted"})
    assert error_of(refused)[1] == "provider_rejected_request"
    assert MARKER in refused.text
    line = entry(gateway, "run", request_id="quoted")
    assert (line["level"], line["outcome"]) == ("WARNING", "provider_rejected_request")
    start_of_reason = "The model provider rejected the request: Unknown stop word [...]"
    assert line["reason"].startswith(start_of_reason)
    upstream.answers["quota"] = rejecting(429, "You exceeded your current quota, see your plan.")
    ask(client, "hi", headers={"x-openclaw-model": "stub/quota", "x-request-id": "poor"})
    poor = entry(gateway, "run", request_id="poor")
    assert poor["reason"].endswith("It says: You exceeded your current quota, see your plan.")
    warning = entry(gateway, "models", request_id="poor")
    assert {name: warning[name] for name in ("level", "run", "agent", "session")} == {
        name: poor[name] for name in ("level", "run", "agent", "session")
    }
    until(lambda: f"openclaw.run run={line['run']} outcome=provider_rejected_request" in gateway.output)

    def break_off(exchange: Exchange) -> None:
        exchange.head()
        exchange.event({"content": MARKER})
        exchange.send(b"data: " + orjson.dumps({"error": {"message": f"After {MARKER}"}}) + b"\n\n")

    upstream.answers["break-off"] = break_off
    ask(client, "hi", stream=True, headers={"x-openclaw-model": "stub/break-off", "x-request-id": "broken"})
    assert "reason" not in entry(gateway, "run", request_id="broken")


def test_arguments_are_logged_where_asked_and_without_secrets(
    gateway: LiveGateway, client: httpx.Client, upstream: Upstream, config: dict[str, Any]
) -> None:
    write_config(gateway, {**config, "logging": {"file": FILE, "toolArguments": True, "format": "json"}})
    until(lambda: '"message":"The edited configuration is in force: logging' in gateway.output)
    upstream.answers["play"] = Play(calls(("read", {"path": "there.txt", "password": MARKER})), calls(text="None."))
    run_id = ask(client, "hi").json()["id"]
    called = entry(gateway, "tool", run=run_id)
    assert orjson.loads(called["arguments"])["path"] == "there.txt"
    until(lambda: any(orjson.loads(line) == called for line in gateway.output.splitlines() if line[:1] == "{"))
    write_config(gateway, config)
    until(lambda: gateway.output.count("configuration is in force: logging") == 2)


def write_config(gateway: LiveGateway, config: Any) -> None:
    new = gateway.directory / "openclaw.new"
    new.write_bytes(orjson.dumps(config))
    new.replace(gateway.directory / "openclaw.json")


def test_command_follows_file_that_is_moved_and_one_that_is_emptied(gateway: LiveGateway, client: httpx.Client) -> None:
    client.get("/openapi.yaml")
    with tempfile.TemporaryFile() as output, Path(os.devnull).open("rb") as stdin:
        arguments = ("logs", "--follow", "--limit", "1")
        following = start(
            arguments, gateway.directory, environment(gateway), stdin.fileno(), output.fileno(), output.fileno()
        )
        try:

            def shown() -> str:
                return os.pread(output.fileno(), 1 << 20, 0).decode()

            until(lambda: "path=/openapi.yaml" in shown())
            path_of(gateway).replace(path_of(gateway).with_name("gateway.log.1"))
            client.get("/openapi.json")
            client.get("/openapi.json")
            until(lambda: shown().count("path=/openapi.json") == 2)
            os.truncate(path_of(gateway), 0)
            client.get("/openapi.json")
            until(lambda: shown().count("path=/openapi.json") == 3)
        finally:
            following.kill()
            following.wait(30)
    done = openclaw(gateway, "logs", "--json")
    paths = [orjson.loads(line).get("path") for line in done.stdout.splitlines()]
    assert "/openapi.yaml" in paths
    assert paths[-1] == "/openapi.json"
    as_text = openclaw(gateway, "logs", "--limit", "1").stdout
    assert re.fullmatch(r"\S+Z INFO openclaw\.access method=GET path=/openapi.json status=200 .*\n", as_text)


def environment_in(directory: Path, config: Any) -> dict[str, str]:
    """The environment of a command whose configuration and state are in `directory`."""
    (directory / "openclaw.json").write_bytes(orjson.dumps(config))
    locations = {"OPENCLAW_CONFIG_PATH": str(directory / "openclaw.json"), "OPENCLAW_STATE_DIR": str(directory)}
    return {**os.environ, **locations}


def test_command_says_where_log_is_without_file(tmp_path: Path) -> None:
    done = run(("logs",), cwd=tmp_path, env=environment_in(tmp_path, {}))
    assert done.returncode == 1
    assert "standard error" in done.stderr
    assert "logging.file" in done.stderr
    unit = re.search(r"journalctl --unit ([a-z-]+)`", done.stderr)
    assert unit is not None
    assert (Path(__file__).parents[3] / "deploy" / f"{unit[1]}.service").exists()


def test_command_needs_none_of_the_gateways_secrets(tmp_path: Path) -> None:
    path = tmp_path / "gateway.log"
    path.write_text("a line\n")
    auth = {"mode": "token", "token": "${A_SECRET_OF_THE_SERVICE}"}
    env = environment_in(tmp_path, {"gateway": {"auth": auth}, "logging": {"file": str(path)}})
    done = run(("logs",), cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a line\n", "")


def make_directory(path: Path) -> None:
    path.mkdir()


def make_unreadable(path: Path) -> None:
    path.touch(0o000)


def make_endless_link(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [make_directory, make_unreadable, make_endless_link])
@pytest.mark.parametrize("options", [(), ("--follow",)])
def test_file_that_cannot_be_read_is_an_error_with_a_remedy(
    tmp_path: Path, make: Callable[[Path], None], options: tuple[str, ...]
) -> None:
    path = tmp_path / "gateway.log"
    make(path)
    if make is make_unreadable and os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    env = environment_in(tmp_path, {"logging": {"file": str(path)}})
    done = run(("logs", *options), cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {path} cannot be read: ")
    assert "logging.file" in done.stderr


@pytest.mark.parametrize(
    ("limit", "shown"),
    [(0, 0), (1, 1), (3, 3), (4, 4), (6, 6), (7, 6), (10**20, 6)],
)
def test_last_lines_are_those_of_both_files(tmp_path: Path, limit: int, shown: int) -> None:
    """Three lines in each file; the last one is longer than what is read at once, and another is yet incomplete."""
    path = tmp_path / "gateway.log"
    path.with_name("gateway.log.1").write_text("1\n2\n3\n")
    path.write_text(f"4\n5\n6{'x' * (3 << 20)}\nincomplete")
    env = environment_in(tmp_path, {"logging": {"file": str(path)}})
    done = run(("logs", "--limit", str(limit)), cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert [line[0] for line in done.stdout.splitlines()] == list("123456")[6 - shown :]


#: Runs a command and prints the most memory that it has had, in KiB.
MEASURED = """
import re, sys
from pathlib import Path
from service.cli import openclaw
openclaw(sys.argv[1:], standalone_mode=False)
print(re.search("VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_end_of_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    path, peaks = tmp_path / "gateway.log", []
    env = environment_in(tmp_path, {"logging": {"file": str(path)}})
    for lines in (2, 600_000):
        path.write_text(f"{'x' * 99}\n" * lines)
        command = [sys.executable, "-c", MEASURED, "logs", "--limit", "2"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=True)
        *printed, peak = done.stdout.splitlines()
        assert len(printed) == 2
        peaks.append(int(peak))
    assert peaks[1] - peaks[0] < 20_000  # of 60,000 in the file
