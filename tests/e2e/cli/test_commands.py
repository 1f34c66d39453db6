"""Simple commands (lists, health, status, setup, completion) and their import cost."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import click
import pytest
from support.command import Home
from support.live import LiveGateway, live_gateway, scripted_config
from support.terminal import Terminal
from support.upstream import Upstream

from service.cli import openclaw
from service.cli.client.address import resolve_gateway
from service.cli.shared.examples import EXAMPLES
from service.config.source import ConfigError, Locations

#: Hides any Ollama that runs on this machine.
NO_OLLAMA = {"OLLAMA_HOST": "127.0.0.1:9"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("gateway"), scripted_config()) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, NO_OLLAMA)


@pytest.fixture
def near(running: LiveGateway, home: Home) -> Home:
    """A home directory whose gateway is running."""
    home.write({**scripted_config(), "gateway": {**scripted_config()["gateway"], "port": running.address[1]}})
    return home


def test_running_gateway_is_healthy(near: Home) -> None:
    done = near.run("health")
    assert (done.status, done.err) == (0, "")
    assert "is live and ready" in done.out
    result = near.run("health", "--json").json
    assert (result["ok"], result["ready"], result["problem"]) == (True, True, None)


def test_health_and_status_without_gateway_hint_at_start(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    for command in ("health", "status"):
        done = home.run(command, "--json", OPENCLAW_GATEWAY_PORT=port)
        assert (done.status, done.json["ok"]) == (1, False)
        assert f"127.0.0.1:{port} does not answer" in done.out
        assert "openclaw gateway" in done.out


def test_health_of_foreign_server_is_reported(home: Home) -> None:
    with Upstream() as other:
        done = home.run("health", OPENCLAW_GATEWAY_URL=other.url.removesuffix("/v1"))
        silent = socket.create_server(("127.0.0.1", 0))
        slow = home.run("health", "--timeout", "0.2", OPENCLAW_GATEWAY_PORT=str(silent.getsockname()[1]))
        silent.close()
    assert done.status == 1
    assert "is not a gateway" in done.err
    assert slow.status == 1
    assert "did not answer within 0.2 s" in slow.err


def test_status_reports_configuration_gateway_and_endpoint(near: Home, running: LiveGateway) -> None:
    done = near.run("status")
    assert done.status == 0
    for part in (str(near.config_path), running.url, "accepts the configured credentials", "main", "beta"):
        assert part in done.out
    assert "\x1b" not in done.out  # colours only on a terminal
    result = near.run("status", "--json").json
    assert result["config"]["valid"]
    assert [agent["id"] for agent in result["agents"]] == ["main", "beta"]
    assert "scripted/echo" in result["agents"][0]["description"]


def test_errors_about_a_gateway_that_is_down_have_a_code(home: Home) -> None:
    for arguments in (("status",), ("health",), ("agent", "--message", "x")):
        done = home.run(*arguments, "--json")
        assert (done.status, done.json["error"]["code"]) == (1, "gateway_unreachable"), arguments


def test_status_reports_refused_secret(near: Home) -> None:
    near.run("config", "set", "gateway.auth.token", "another")
    result = near.run("status", "--json").json
    assert result["gateway"]["running"]
    assert "Wrong token" in result["endpoint"]["problem"]
    assert (result["ok"], result["error"]["code"]) == (False, "invalid_api_key")
    assert result["error"]["message"] == result["endpoint"]["problem"]
    assert near.run("status").status == 1


@pytest.mark.parametrize(
    ("sandbox", "note"), [("off", "without a sandbox"), ("auto", "in a sandbox|no sandbox works here")]
)
def test_status_and_validation_say_in_which_sandbox_commands_run(home: Home, sandbox: str, note: str) -> None:
    config = {**scripted_config(), "tools": {"profile": "full", "exec": {"sandbox": sandbox}}}
    config["agents"]["defaults"]["workspace"] = str(home.directory)
    home.write(config)
    for command in (("status",), ("config", "validate")):
        done = home.run(*command)
        assert re.search(rf"tools\.exec\.sandbox: .*({note})", done.out + done.err), done


def test_agents_are_listed(home: Home) -> None:
    config = scripted_config()
    config["agents"]["list"][1]["model"] = {"primary": "openai/gpt-5", "fallbacks": ["ollama/llama3.2"]}
    home.write(config)
    done = home.run("agents", "list")
    [_, main, beta] = done.out.splitlines()
    assert main.split() == ["main", "(default)", "main", "scripted/echo", "-"]
    assert "openai/gpt-5, then ollama/llama3.2" in beta
    result = home.run("agents", "list", "--json").json
    assert [(agent["id"], agent["isDefault"]) for agent in result] == [("main", True), ("beta", False)]


def test_agent_is_shown_with_why_it_has_each_tool(home: Home) -> None:
    config = scripted_config(limits={"agents": {"beta": {"requestsPerMinute": 5, "budget": "5usd/day"}}})
    config["agents"]["list"][1] |= {
        "workspace": str(home.directory),
        "tools": {"profile": "coding", "alsoAllow": ["near__*"], "deny": ["write"], "approvals": {"exec": "ask"}},
    }
    config["mcp"] = {"servers": {"near": {"command": "near"}, "far": {"url": "http://127.0.0.1:9/mcp"}}}
    home.write(config)
    shown = home.run("agents", "show", "Beta", "--json").json
    tools = {one["name"]: (one["allowed"], one["reason"]) for one in shown["tools"]}
    assert tools["read"] == (True, 'in the profile "coding"')
    assert tools["write"] == (False, "denied by the agent's tools.deny")
    assert tools["exec"][1].endswith("; a person is asked first")
    assert (tools["near__*"][0], tools["far__*"][0]) == (True, False)
    assert (shown["limits"]["requestsPerMinute"], shown["limits"]["budget"]) == (5, "5usd/day")
    assert "commands" in shown["sandbox"]
    main = home.run("agents", "show", "main")
    assert (main.status, "main (default): main" in main.out) == (0, True)
    assert re.search(r"^exec +no +not in the default tools$", main.out, re.MULTILINE)
    assert re.search(r"^read +no +the agent has no workspace$", main.out, re.MULTILINE)
    assert 'Unknown agent "nobody"' in home.run("agents", "show", "nobody").err


def test_models_of_every_source_are_listed(home: Home) -> None:
    config = scripted_config()
    config["models"]["providers"]["vllm"] = {
        "baseUrl": "http://127.0.0.1:9/v1",
        "models": [{"id": "Qwen/Qwen3-8B", "contextWindow": 32768}],
    }
    config["agents"]["list"][1]["model"] = "groq/llama-3.3-70b-versatile"
    home.write(config)
    with Upstream() as ollama:
        ollama.models = ["llama3.2"]
        result = home.run(
            "models", "list", "--json", OLLAMA_HOST=ollama.url.removesuffix("/v1"), OPENAI_API_KEY="k"
        ).json
    found = {model["key"]: model for model in result}
    assert found["scripted/echo"]["agents"] == ["main"]
    assert found["vllm/Qwen/Qwen3-8B"]["contextWindow"] == 32768
    assert found["openai/<model>"]["source"] == "OPENAI_API_KEY"
    assert found["ollama/llama3.2"]["source"] == "Ollama"
    assert "GROQ_API_KEY is not set" in found["groq/llama-3.3-70b-versatile"]["problem"]
    assert "local/smollm2-135m-instruct" in home.run("models", "list").out


@pytest.mark.parametrize(
    ("env", "arguments", "model"),
    [
        ({}, (), "local/smollm2-135m-instruct"),
        ({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": " "}, ("--endpoint",), "anthropic/"),
        ({"OPENAI_API_KEY": "k"}, ("--model", "groq/x", "--profile", "p"), "groq/x"),
    ],
)
def test_setup_writes_valid_configuration(
    home: Home, env: dict[str, str], arguments: tuple[str, ...], model: str
) -> None:
    done = home.run("setup", "--json", *arguments, **env)
    assert done.status == 0, done.err
    path = Path(done.json["path"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert done.json["model"].startswith(model)
    at = arguments[2:] if "--profile" in arguments else ()
    assert home.run("config", "validate", *at, **env).status == 0
    written = home.run("config", "get", "gateway", *at).json
    assert written["http"]["endpoints"]["chatCompletions"]["enabled"] is ("--endpoint" in arguments)
    token = home.run("config", "get", "gateway.auth.token", *at).out.strip()
    assert len(token) >= 43
    assert token not in done.out + done.err
    before = path.read_bytes()
    again = home.run("setup", *arguments, **env)
    assert again.status == 1
    assert "already exists" in again.err
    assert path.read_bytes() == before


def test_setup_detects_running_ollama(home: Home) -> None:
    with Upstream() as ollama:
        ollama.models = ["nomic-embed-text:latest", "llama3.2", "qwen3"]
        done = home.run("setup", "--json", OLLAMA_HOST=ollama.url.removesuffix("/v1"))
    assert done.json["model"] == "ollama/llama3.2"


def test_setup_refuses_invalid_model(home: Home) -> None:
    done = home.run("setup", "--model", "gpt")
    assert done.status == 1
    assert "provider/model" in done.err
    done = home.run("setup", "--model", "nowhere/x")
    assert done.status == 1
    assert 'No provider "nowhere"' in done.err
    assert not home.config_path.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(home: Home, shell: str) -> None:
    done = home.run("completion", shell)
    assert done.status == 0
    assert f"_OPENCLAW_COMPLETE={shell}_complete" in done.out


def test_commands_and_options_are_completed(home: Home) -> None:
    def complete(words: str) -> list[str]:
        env = {"_OPENCLAW_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        return [line.partition(",")[2] for line in home.run(**env).out.splitlines()]

    assert complete("openclaw co") == ["completion", "config"]
    assert "validate" in complete("openclaw config ")
    assert "--endpoint" in complete("openclaw setup --e")


#: A bash with the completion, in which `openclaw` offers a key, and prints its arguments.
SHELL = """
openclaw() {
    if [[ $_OPENCLAW_COMPLETE ]]; then printf 'plain,%s\\n' "$KEY"; else printf 'got<%s>\\n' "${@:3}"; fi
}
"""


@pytest.mark.parametrize("before", ["sessions show other ", "agent hi --session-key="])
@pytest.mark.parametrize(
    ("key", "typed"),
    [
        ("agent:main:talk", "agent:main:t"),
        ("agent:main:talk", "agent:"),
        ("agent:main:talk", ""),
        ("agent:main:bob@example.com", "agent:main:bob@ex"),
        ("agent:main:x=1", "agent:main:x="),
        ("agent:main:two words", "agent:main:tw"),
        ("agent:main:z$(touch made);`touch made`'\"", "agent:main:z"),
        ("agent:main:talk", '"agent:main:t'),
    ],
)
def test_key_completed_by_bash_is_one_argument_as_it_is(home: Home, before: str, key: str, typed: str) -> None:
    script = home.directory / "completion.bash"
    script.write_text(home.run("completion", "bash").out + SHELL)
    env = {**home.environment(), "PS1": "ready> ", "KEY": key}
    terminal = Terminal(["--norc", "--noprofile", "-i"], home.directory, env, program=["bash"])
    terminal.type_after("ready> ", f". {script}")
    terminal.type_after("ready> ", f"openclaw {before}{typed}\t")
    terminal.type_after("ready> ", "exit")
    terminal.wait()
    expected = f"--session-key={key}" if before.endswith("=") else key
    assert re.findall("got<(.*)>\n", terminal.shown)[-1] == expected
    assert not (home.directory / "made").exists()


def test_keys_of_sessions_are_offered(home: Home) -> None:
    home.write(scripted_config())
    for key in ("talk", "tally"):
        assert home.run("agent", "--local", "--session-key", key, "hi").status == 0
    env = {
        "_OPENCLAW_COMPLETE": "bash_complete",
        "COMP_WORDS": "openclaw\nsessions\nshow\nagent:main:t",
        "COMP_CWORD": "3",
    }
    offered = home.run(**env).out.split()
    assert sorted(offered) == ["plain,agent:main:talk", "plain,agent:main:tally"]


LIGHT = [("--help",), ("--version",), ("config", "file"), ("config", "get"), ("health",), ("gateway", "--help")]
LIGHT += [("completion", "bash"), ("agent", "--help")]
HEAVY = {"gevent", "sqlalchemy", "connexion", "flask", "pydantic", "jsonschema_rs", "trafilatura", "websockets"}
HEAVY |= {"geventhttpclient"}


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_simple_commands_import_no_heavy_modules(near: Home, arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom service.cli import openclaw\n"
        f"status = openclaw({list(arguments)!r}, standalone_mode=False)\n"
        "print('modules:', *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=near.environment(), capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stderr.rpartition("modules:")[2].split())
    assert "click" in loaded
    assert loaded & HEAVY == set()


def all_commands(command: click.Command = openclaw, words: str = "") -> Iterator[tuple[str, click.Command]]:
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from all_commands(below, f"{words} {name}".lstrip())


def test_every_command_has_help_with_examples_that_it_takes(tmp_path: Path) -> None:
    for name in ("sessions.jsonl", "2f1c.jsonl"):  # which examples read
        (tmp_path / name).touch()
    openclaw.load_all()
    commands = dict(all_commands())
    assert commands.keys() == EXAMPLES.keys()
    for words, command in commands.items():
        assert command.help, words
        shown = command.get_help(click.Context(command))
        assert re.findall(r"\bExamples?:", shown) == ["Examples:"], words
        for example in EXAMPLES[words]:
            assert f"  {example}\n" in f"{shown}\n"
            [ours] = [part for part in re.split(r"[|>]", example) if part.strip().startswith("openclaw ")]
            with chdir(tmp_path):
                check_example(shlex.split(ours)[1:], words)


def check_example(arguments: list[str], words: str) -> None:
    """The example is one of the command or of one below it, and its arguments are valid."""
    command: click.Command = openclaw
    path = []
    while isinstance(command, click.Group):
        path.append(arguments.pop(0))
        command = command.commands[path[-1]]
    assert f"{' '.join(path)} ".startswith(f"{words} ".lstrip()), (arguments, words)
    assert command.make_context(path[-1], arguments).info_name == path[-1]


def test_colours_are_for_terminals_without_no_color(home: Home) -> None:
    home.write(scripted_config())
    for env, has_colours in (({}, True), ({"NO_COLOR": "1"}, False)):
        terminal = Terminal(["agents", "list"], home.directory, home.environment(**env))
        assert terminal.wait() == 0
        assert ("\x1b[" in terminal.shown) is has_colours


# Gateway addresses.


@pytest.fixture
def place(tmp_path: Path) -> Locations:
    return Locations(tmp_path / "openclaw.json", tmp_path, dev=False)


REMOTE = "gateway: {mode: 'remote', remote: {url: 'wss://far.example:8443/', token: 'r'}, auth: {token: 't'}}"


@pytest.mark.parametrize(
    ("text", "environ", "url", "secret"),
    [
        ("", {}, "http://127.0.0.1:18789", ""),
        ("gateway: {port: 5, auth: {token: 't'}}", {}, "http://127.0.0.1:5", "t"),
        ("gateway: {port: 5, auth: {token: 't'}}", {"OPENCLAW_GATEWAY_PORT": "6"}, "http://127.0.0.1:6", "t"),
        ("gateway: {auth: {token: '${T}'}}", {"T": "x"}, "http://127.0.0.1:18789", "x"),
        ("gateway: {auth: {token: '${T}'}}", {"OPENCLAW_GATEWAY_TOKEN": "y"}, "http://127.0.0.1:18789", "y"),
        ("gateway: {auth: {mode: 'password', token: 't', password: 'p'}}", {}, "http://127.0.0.1:18789", "p"),
        ("gateway: {auth: {mode: 'none', token: 't'}}", {}, "http://127.0.0.1:18789", ""),
        ("gateway: {bind: 'custom', customBindHost: '::1'}", {}, "http://[::1]:18789", ""),
        (REMOTE, {}, "https://far.example:8443", "r"),
        (REMOTE, {"OPENCLAW_GATEWAY_URL": "ws://other:1/"}, "http://other:1", ""),
        (
            REMOTE,
            {"OPENCLAW_GATEWAY_URL": "http://other:1", "OPENCLAW_GATEWAY_TOKEN": "e"},
            "http://other:1",
            "e",
        ),
    ],
)
def test_local_gateway_address_is_resolved(
    place: Locations, text: str, environ: dict[str, str], url: str, secret: str
) -> None:
    place.config_path.write_text(f"{{{text}}}")
    found = resolve_gateway(place, environ)
    assert (found.url, found.secret) == (url, secret)


def test_certificate_pin_of_remote_gateway_is_refused(place: Locations) -> None:
    pinned = REMOTE.replace("token: 'r'", "token: 'r', tlsFingerprint: 'AB:CD'")
    place.config_path.write_text(f"{{{pinned}}}")
    with pytest.raises(ConfigError, match="tlsFingerprint"):
        resolve_gateway(place, {})


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:1", "ws://", "http://x:99999"])
def test_address_without_host_is_refused(place: Locations, url: str) -> None:
    with pytest.raises(ConfigError, match="OPENCLAW_GATEWAY_URL"):
        resolve_gateway(place, {"OPENCLAW_GATEWAY_URL": url})


def test_secret_is_not_printed(place: Locations) -> None:
    place.config_path.write_text("{gateway: {auth: {token: 's3cret'}}}")
    assert "s3cret" not in repr(resolve_gateway(place, {}))
