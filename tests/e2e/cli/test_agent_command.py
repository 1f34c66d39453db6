"""`openclaw agent`, through a running gateway and with --local."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.chat import ask
from support.command import Home
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.operator_client import operator_client
from support.polling import until
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

CLIENT_OPTIONS = [pytest.param((), id="gateway"), pytest.param(("--local",), id="local")]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[LiveGateway]:
    config = scripted_config()
    config["models"]["providers"]["up"] = {"baseUrl": upstream.url}
    config["models"]["retry"] = {"attempts": 1}
    with live_gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def home(running: LiveGateway, tmp_path: Path) -> Home:
    """Home directory with the configuration and state of the running gateway."""
    env = {
        "OPENCLAW_CONFIG_PATH": str(running.output_path.with_name("openclaw.json")),
        "OPENCLAW_STATE_DIR": str(running.state_dir),
        "OPENCLAW_GATEWAY_PORT": str(running.address[1]),
        "OLLAMA_HOST": "127.0.0.1:9",
    }
    return Home(tmp_path, env)


def result_of(output: Any, client_options: tuple[str, ...]) -> Any:
    """Return the result from the output of --json."""
    if client_options:
        return output
    assert output["runId"]
    assert (output["status"], output["summary"]) == ("ok", "completed")
    return output["result"]


@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
def test_answer_alone_is_printed(home: Home, client_options: tuple[str, ...]) -> None:
    done = home.run("agent", "--message", "Xin chào, thế giới", *client_options)
    assert (done.status, done.out, done.err) == (0, "Xin chào, thế giới\n", "")
    done = home.run("agent", "-m", "-", *client_options, text="from a pipe")
    assert done.out == "from a pipe\n"


@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
def test_json_output_has_text_and_metadata(home: Home, client_options: tuple[str, ...]) -> None:
    done = home.run("agent", "--message", "one two", "--agent", "beta", "--session-id", "s1", "--json", *client_options)
    assert done.status == 0
    result = result_of(done.json, client_options)
    assert result["payloads"] == [{"text": "one two", "mediaUrl": None}]
    meta = result["meta"]
    assert meta["agentMeta"]["agentId"] == "beta"
    assert meta["agentMeta"]["sessionKey"] == "agent:beta:explicit:s1"
    assert meta["agentMeta"]["usage"]["output"] == 2
    assert meta["durationMs"] >= 0


@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
def test_session_key_selects_agent_and_model_can_be_overridden(home: Home, client_options: tuple[str, ...]) -> None:
    arguments = ("--session-key", "agent:beta:là 1", "--model", "scripted/count-3", "--json", *client_options)
    result = result_of(home.run("agent", "--message", "x", *arguments).json, client_options)
    assert result["payloads"][0]["text"].split() == ["1", "2", "3"]
    assert result["meta"]["agentMeta"]["sessionKey"] == "agent:beta:là 1"


def test_command_local_run_and_endpoint_continue_one_conversation(
    home: Home, running: LiveGateway, upstream: Upstream
) -> None:
    session = ("--session-key", "shared", "--model", "up/echo")
    home.run("agent", "--message", "first", *session)
    home.run("agent", "--message", "second", *session, "--local")
    with running.client() as client:
        headers = {"x-openclaw-session-key": "shared", "x-openclaw-model": "up/echo"}
        client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "third"}]}, headers=headers
        ).raise_for_status()
    home.run("agent", "--message", "fourth", *session)
    texts = [message["content"] for message in upstream.requests[-1].body["messages"] if message["role"] != "system"]
    assert texts == ["first", "first", "second", "second", "third", "third", "fourth"]


def test_every_api_returns_one_transcript(home: Home, running: LiveGateway) -> None:
    key = "agent:main:one-transcript"
    home.run("agent", "--message", "through the gateway", "--session-key", key)
    home.run("agent", "--message", "without it", "--session-key", key, "--local")
    with running.client() as client, operator_client(running) as operator:
        ask(client, "over HTTP", headers={"x-openclaw-session-key": key})
        _, final = operator.run("over a WebSocket", str(uuid.uuid4()), sessionKey=key)
        assert final["ok"]
        output = client.get(f"/v1/sessions/{key}").json()["messages"]
        history = operator.call("chat.history", {"sessionKey": key})["messages"]
    texts = [text for text in ("through the gateway", "without it", "over HTTP", "over a WebSocket") for _ in "qa"]
    assert [part["text"] for message in output for part in message["content"]] == texts
    assert [message["role"] for message in output] == ["user", "assistant"] * 4
    assert [part["text"] for message in history for part in message["content"]] == texts
    exported = home.run("sessions", "export", key).out.splitlines()
    assert len([line for line in exported if '"role"' in line]) >= len(texts)


@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--agent", "nobody"), "nobody"),
        (("--model", "nowhere/x"), "nowhere"),
        (("--model", "up/drop-before"), "provider"),
        (("--model", "scripted/fail-midway"), "middle"),
        (("--session-key", "subagent:x"), "reserved"),
    ],
)
def test_failure_prints_message_and_exits_with_1(
    home: Home, client_options: tuple[str, ...], arguments: tuple[str, ...], words: str
) -> None:
    done = home.run("agent", "--message", "x", *arguments, "--json", *client_options)
    assert done.status == 1
    assert done.json["ok"] is False
    assert done.json["error"]["type"] == "cli_error"
    assert done.json["error"]["message"] in done.err
    assert words in done.err


def test_contradicting_options_are_refused(home: Home) -> None:
    for arguments in (
        ("--session-id", "a", "--session-key", "b"),
        ("--agent", "main", "--session-key", "agent:beta:x"),
        ("--stream", "--json"),
        *(("--timeout", seconds) for seconds in ("0", "-1", "nan", "inf", "-inf", "1e300", "soon")),
    ):
        assert home.run("agent", "--message", "x", *arguments).status == 2
    assert home.run("agent").status == 2


@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
@pytest.mark.parametrize(("message", "typed"), [("", ""), (" \n", ""), ("-", "\n")])
def test_empty_message_is_usage_error(home: Home, client_options: tuple[str, ...], message: str, typed: str) -> None:
    done = home.run("agent", "--message", message, *client_options, text=typed)
    assert (done.status, done.out) == (2, "")
    assert "Invalid value for --message: the message is empty" in done.err


@pytest.mark.parametrize(("characters", "character"), [(25 * 2**20, "a"), (5 * 2**20, "\u00e9")])
def test_message_beyond_the_limit_is_refused_before_it_is_sent(home: Home, characters: int, character: str) -> None:
    done = home.run("agent", "-", "--json", text=character * characters)
    assert (done.status, done.json["error"]["code"]) == (1, "request_too_large")
    assert "The message is too large: " in done.err
    assert "25 MiB is the limit" in done.err
    assert "may continue" not in done.err
    assert home.run("agent", "-", text=character * 10).out == f"{character * 10}\n"


@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
def test_timeout_ends_run(home: Home, client_options: tuple[str, ...]) -> None:
    done = home.run("agent", "--message", "x", "--model", "scripted/silent", "--timeout", "0.5", *client_options)
    assert (done.status, done.out) == (1, "")
    assert "did not finish within 0.5 s" in done.err


def test_missing_gateway_is_reported_with_remedy(home: Home) -> None:
    done = home.run("agent", "--message", "x", OPENCLAW_GATEWAY_PORT="9")
    assert done.status == 1
    assert "127.0.0.1:9/ does not answer" in done.err
    assert "`openclaw gateway` starts one" in done.err
    assert "--local" in done.err
    assert "openclaw setup" not in done.err


def test_missing_configuration_hints_at_setup(tmp_path: Path) -> None:
    home = Home(tmp_path, {"OPENCLAW_GATEWAY_PORT": "9"})
    for command in (("agent", "--message", "x"), ("health",), ("status",)):
        done = home.run(*command)
        assert done.status == 1
        output = done.out + done.err
        assert f"There is no configuration at {home.config_path}: `openclaw setup` writes one." in output


def test_missing_secret_is_reported_with_its_keys(tmp_path: Path, running: LiveGateway) -> None:
    home = Home(tmp_path, {"OPENCLAW_GATEWAY_PORT": str(running.address[1])})
    done = home.run("agent", "--message", "x")
    assert done.status == 1
    assert "The token of this gateway is missing" in done.err
    for key in ("gateway.auth.token", "OPENCLAW_GATEWAY_TOKEN", "`openclaw setup`"):
        assert key in done.err
    assert "gateway.auth.token or" in home.run("status", "--json").json["endpoint"]["problem"]
    home.write({"gateway": {"mode": "remote", "remote": {"url": running.url}}})
    done = home.run("agent", "--message", "x", OPENCLAW_GATEWAY_TOKEN="wrong")
    assert "Wrong token" in done.err
    assert "gateway.remote.token or" in done.err
    done = home.run("agent", "--message", "x", OPENCLAW_GATEWAY_URL=running.url)
    assert "Set the gateway's secret in OPENCLAW_GATEWAY_TOKEN or OPENCLAW_GATEWAY_PASSWORD." in done.err
    done = home.run("agent", "--message", "x", OPENCLAW_GATEWAY_URL="ws://127.0.0.1:9")
    assert "does not answer" in done.err
    assert "The address is from OPENCLAW_GATEWAY_URL." in done.err
    assert "starts one" not in done.err


@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
def test_notes_about_stream_are_on_separate_lines(home: Home, client_options: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "service", "agent", "--message", "x", "--stream", *client_options]
    done = subprocess.run(
        [*command, "--model", "scripted/fail-midway"],
        env=home.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    said, output = done.stdout.splitlines()
    assert said == "This will not"
    assert output.startswith("Error: This model fails in the middle of its answer.")


def test_environment_overrides_gateway_address_and_secret(home: Home, running: LiveGateway) -> None:
    url = running.url.replace("http", "ws")
    assert home.run("agent", "--message", "hi", OPENCLAW_GATEWAY_URL=url).status == 1
    done = home.run("agent", "--message", "hi", OPENCLAW_GATEWAY_URL=url, OPENCLAW_GATEWAY_TOKEN=TOKEN)
    assert done.out == "hi\n"


def start(home: Home, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service", "agent", "--message", "x", *arguments]
    return subprocess.Popen(
        command, env=home.environment(), cwd=home.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
def test_stream_prints_answer_incrementally(home: Home, client_options: tuple[str, ...]) -> None:
    process = start(home, "--stream", "--model", "scripted/slow", *client_options)
    assert process.stdout is not None
    first = process.stdout.read(4)
    arrived = time.monotonic()
    rest = process.stdout.read()
    assert first == b"This"
    assert rest.endswith(b"before it ends.\n")
    assert time.monotonic() - arrived > 0.5  # seventeen more words, one each 0.1 s
    assert process.wait(60) == 0
    process.communicate()


@pytest.mark.parametrize("signals", [1, 40])
@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
def test_ctrl_c_aborts_run_and_exits_with_130(
    home: Home, upstream: Upstream, client_options: tuple[str, ...], signals: int
) -> None:
    upstream.aborted.clear()
    asked = len(upstream.requests)
    process = start(home, "--model", "up/hang", *client_options)
    until(lambda: len(upstream.requests) > asked)
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    # Equivalent for shells; an interpreter that has almost exited dies by the signal.
    assert process.returncode in ((130,) if signals == 1 else (130, -signal.SIGINT))
    assert out == b""
    assert b"Traceback" not in err
    until(upstream.aborted.is_set)


@pytest.mark.parametrize("client_options", CLIENT_OPTIONS)
def test_runs_of_session_are_aborted_by_key(home: Home, upstream: Upstream, client_options: tuple[str, ...]) -> None:
    asked = len(upstream.requests)
    process = start(home, "--session-key", "agent:beta:stuck", "--model", "up/hang", *client_options)
    until(lambda: len(upstream.requests) > asked)
    nothing = home.run("sessions", "abort", "stuck", "--json").json
    assert (nothing["ok"], nothing["aborted"], nothing["runIds"]) == (True, False, [])
    done = home.run("sessions", "abort", "stuck", "--agent", "Beta")
    assert (done.status, done.out.count("\n"), done.out.startswith("Aborted ")) == (0, 1, True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"aborted" in err


def test_abort_without_active_run_names_session(home: Home) -> None:
    for arguments, key in (
        (("quiet",), "agent:main:quiet"),
        (("quiet", "--agent", "Beta"), "agent:beta:quiet"),
        (("agent:beta:quiet",), "agent:beta:quiet"),
    ):
        done = home.run("sessions", "abort", *arguments)
        assert (done.status, done.out, done.err) == (0, f"No run is active in {key}.\n", "")


def test_abort_without_gateway_fails_with_hint(home: Home) -> None:
    done = home.run("sessions", "abort", "stuck", OPENCLAW_GATEWAY_PORT="9")
    assert (done.status, done.out) == (1, "")
    assert "`openclaw gateway` starts one" in done.err


def test_agent_command_works_with_endpoint_disabled_and_shows_only_its_tools(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "notes.txt").write_text("apples")
    config = scripted_config(http={"endpoints": {"chatCompletions": {"enabled": False}}})
    with Upstream() as upstream:
        upstream.answers["play"] = Play(calls(("read", {"path": "notes.txt"})), calls(text="It says apples."))
        config["models"]["providers"]["up"] = {"baseUrl": upstream.url, "models": [{"id": "play"}]}
        config["agents"]["list"][0] |= {"model": "up/play", "workspace": str(workspace)}
        with live_gateway(tmp_path / "gateway", config) as running:
            with running.client() as client:
                assert client.get("/v1/models").status_code == 404
            env = {"OPENCLAW_GATEWAY_URL": running.url, "OPENCLAW_GATEWAY_TOKEN": TOKEN}
            home = Home(tmp_path, env)
            other = start(home, "--agent", "beta", "--session-id", "other", "--stream", "--model", "scripted/slow")
            assert other.stdout is not None
            assert other.stdout.read(4) == b"This"
            done = home.run("agent", "--message", "what do they say?", "--stream")
            assert (done.status, done.out, done.err) == (0, "It says apples.\n", "[read]\n")
            out, err = other.communicate(timeout=60)
            assert (other.returncode, err) == (0, b"")
            assert out.endswith(b"before it ends.\n")


def test_session_id_is_same_session_with_every_client(home: Home, running: LiveGateway) -> None:
    with operator_client(running) as operator:
        operator.run("over the websocket", str(uuid.uuid4()), sessionId="same 1", agentId="beta")
        for client_options in ((), ("--local",)):
            assert (
                home.run("agent", "-m", "here", "--agent", "beta", "--session-id", " same 1", *client_options).status
                == 0
            )
        messages = operator.call("chat.history", {"sessionKey": "agent:beta:explicit:same 1"})["messages"]
    assert [one["content"][0]["text"] for one in messages if one["role"] == "user"] == [
        "over the websocket",
        "here",
        "here",
    ]


def test_wrong_secret_and_foreign_server_are_distinguished(
    home: Home, running: LiveGateway, upstream: Upstream
) -> None:
    url = running.url.replace("http", "ws")
    done = home.run("agent", "-m", "x", "--json", OPENCLAW_GATEWAY_URL=url, OPENCLAW_GATEWAY_TOKEN="wrong")
    assert done.status == 1
    assert done.json["error"]["message"].startswith(
        "Wrong token. Send the gateway's token. The address and its secret are"
    )
    stranger = upstream.url.removesuffix("/v1")
    done = home.run("agent", "-m", "x", OPENCLAW_GATEWAY_URL=stranger)
    assert (done.status, done.out) == (1, "")
    assert "gateway" in done.err


def test_lost_gateway_is_reported(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config()) as running:
        env = {"OPENCLAW_GATEWAY_URL": running.url, "OPENCLAW_GATEWAY_TOKEN": TOKEN}
        process = start(Home(tmp_path, env), "--stream", "--model", "scripted/slow")
        assert process.stdout is not None
        assert process.stdout.read(4) == b"This"
        running.process.kill()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"was lost" in err
    assert b"Traceback" not in err


def test_run_aborted_by_another_client_fails(home: Home, running: LiveGateway, upstream: Upstream) -> None:
    asked = len(upstream.requests)
    process = start(home, "--model", "up/hang", "--session-key", "aborted elsewhere")
    until(lambda: len(upstream.requests) > asked)
    with operator_client(running) as operator:
        assert operator.call("chat.abort", {"sessionKey": "aborted elsewhere"})["aborted"]
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert b"aborted" in err


def test_local_run_needs_no_configuration_file(tmp_path: Path) -> None:
    home = Home(tmp_path, {"OLLAMA_HOST": "127.0.0.1:9"})
    done = home.run("agent", "--message", "x", "--model", "nowhere/x", "--local", "--json")
    assert done.status == 1
    assert "nowhere" in json.loads(done.out)["error"]["message"]
