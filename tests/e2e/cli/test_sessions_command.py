"""`openclaw sessions`, beside a running gateway and without one, on both databases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from click.testing import CliRunner
from support.chat import ask, error_of
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.preloaded import Ended, run
from support.processes import started
from support.scripted_upstream import Play, calls
from support.upstream import Upstream
from support.upstream_answers import WORDS, hang_midway

from service.cli import openclaw

SESSION_KEY = "x-openclaw-session-key"


@dataclass(frozen=True)
class Place:
    """Configuration and state of a gateway."""

    directory: Path
    config: dict[str, Any]

    def openclaw(self, *arguments: str, typed: str = "") -> Ended:
        """Run `openclaw sessions` on this state."""
        self.directory.mkdir(exist_ok=True)
        (self.directory / "openclaw.json").write_bytes(orjson.dumps(self.config))
        return run(("sessions", *arguments), cwd=self.directory, env=self.environment(), text=typed)

    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")},
            "OPENCLAW_CONFIG_PATH": str(self.directory / "openclaw.json"),
            "OPENCLAW_STATE_DIR": str(self.directory / "state"),
        }

    def json(self, *arguments: str) -> Any:
        done = self.openclaw(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def listed(self) -> list[str]:
        return [session["key"] for session in self.json("list")["sessions"]]


@pytest.fixture
def place(database_url: str | None, tmp_path: Path) -> Place:
    state = {} if database_url is None else {"state": {"url": database_url}}
    return Place(tmp_path / "place", {**scripted_config(), **state})


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, LiveGateway]]:
    """A gateway that keeps running while commands read its database."""
    place = Place(tmp_path_factory.mktemp("used"), scripted_config())
    with live_gateway(place.directory, place.config) as running, running.client() as client:
        for text in ("how are you?", "and\x1b[31m now"):
            ask(client, text, headers={SESSION_KEY: "talk"})
        tool = {"type": "function", "function": {"name": "look"}}
        ask(
            client,
            "look",
            headers={SESSION_KEY: "tools", "x-openclaw-agent-id": "beta", "x-openclaw-model": "scripted/tools"},
            tools=[tool],
        )
        for agent in ("main", "beta"):
            ask(client, "hi", headers={SESSION_KEY: "both", "x-openclaw-agent-id": agent})
        yield place, running


def test_sessions_are_listed_and_deleted_without_gateway(place: Place) -> None:
    with live_gateway(place.directory, place.config) as running, running.client() as client:
        for name in ("one", "two"):
            ask(client, "hi", headers={SESSION_KEY: name})
        assert place.listed() == ["agent:main:two", "agent:main:one"]
    assert place.openclaw("delete", "agent:main:one", "--yes").stdout == "Deleted agent:main:one.\n"
    assert place.listed() == ["agent:main:two"]


def test_list_prints_table(used: tuple[Place, LiveGateway]) -> None:
    lines = used[0].openclaw("list").stdout.splitlines()
    assert lines[0].split() == ["KEY", "LAST", "USED", "(UTC)", "MESSAGES", "TOKENS", "MODEL", "TITLE"]
    assert any(line.startswith("agent:main:talk ") and line.endswith("how are you?") for line in lines)
    assert len(used[0].openclaw("list", "--agent", "Beta").stdout.splitlines()) == 3


def test_truncated_list_is_announced(used: tuple[Place, LiveGateway]) -> None:
    place, _ = used
    for limit, rows, more in (("3", 3, True), ("4", 4, False)):
        done = place.openclaw("list", "--limit", limit)
        assert len(done.stdout.splitlines()) == 1 + rows
        assert done.stderr == ("... more sessions exist; use --limit to list them\n" if more else "")
        result = place.json("list", "--limit", limit)
        assert (len(result["sessions"]), result["has_more"]) == (rows, more)


def test_session_is_shown_without_control_characters(used: tuple[Place, LiveGateway]) -> None:
    shown = used[0].openclaw("show", "agent:main:talk").stdout
    assert "how are you?" in shown
    assert "\x1b" not in shown
    assert "[calls look {}]" in used[0].openclaw("show", "agent:beta:tools").stdout
    [last] = used[0].json("show", "agent:main:talk", "--limit", "1")["messages"]
    assert (last["role"], last["index"]) == ("assistant", 3)


def test_export_writes_one_line_per_session_message_and_summary(
    used: tuple[Place, LiveGateway], tmp_path: Path
) -> None:
    done = used[0].openclaw("export", "--all", "--output", str(tmp_path / "all.jsonl"))
    assert (done.returncode, done.stdout) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    sessions = {line["key"]: line for line in lines if line["object"] == "session"}
    assert set(sessions) == {"agent:main:talk", "agent:beta:tools", "agent:main:both", "agent:beta:both"}
    messages = [line for line in lines if line.get("session_key") == "agent:main:talk"]
    assert [(line["index"], line["role"]) for line in messages] == [
        (0, "user"),
        (1, "assistant"),
        (2, "user"),
        (3, "assistant"),
    ]
    assert messages[2]["content"] == [{"type": "text", "text": "and\x1b[31m now"}]
    assert "usage" not in messages[2]
    assert (messages[3]["model"], messages[3]["run_id"]) == (
        "scripted/echo",
        sessions["agent:main:talk"]["last_run_id"],
    )
    total = sessions["agent:main:talk"]["usage"]["input_tokens"]
    assert sum(line["usage"]["input_tokens"] for line in messages if "usage" in line) == total
    one = used[0].openclaw("export", "agent:beta:tools").stdout.splitlines()
    assert json.loads(one[2])["tool_calls"][0]["function"]["name"] == "look"


def test_truncated_run_is_shown_with_its_text(place: Place, tmp_path: Path) -> None:
    config = place.config
    with Upstream() as upstream:
        upstream.answers |= {"play": Play(calls(("exec", {"command": "sleep 60"}))), "half": hang_midway}
        config["models"]["providers"]["up"] = {"baseUrl": upstream.url}
        config["agents"]["list"][0] |= {"model": "up/play", "workspace": str(tmp_path)}
        config["agents"]["defaults"]["timeoutSeconds"] = 2
        config["tools"] = {"allow": ["exec"]}
        headers = {SESSION_KEY: "cut", "x-openclaw-agent-id": config["agents"]["list"][0]["id"]}
        with live_gateway(place.directory, config) as running, running.client() as client:
            assert error_of(ask(client, "sleep", headers=headers))[1] == "run_timeout"
            half = {**headers, "x-openclaw-model": "up/half"}
            assert error_of(ask(client, "speak", headers=half))[1] == "run_timeout"
            ask(client, "hi", headers={**headers, "x-openclaw-model": "scripted/echo"})
            result = upstream.requests[-1].body["messages"]
    assert result[-2]["content"] == "(no result: the time of the run was up)"
    shown = place.openclaw("show", "cut").stdout.split("\n\n")
    marked = [number for number, text in enumerate(shown) if "[the run ended here: run_timeout]" in text]
    assert marked == [3, 5]
    assert WORDS[0] in shown[5]
    lines = [json.loads(line) for line in place.openclaw("export", "cut").stdout.splitlines()]
    assert [line.get("run_error") for line in lines if line["object"] == "session.message"] == ["run_timeout"] * 5 + [
        None
    ] * 2


def test_command_line_export_and_http_have_one_vocabulary(used: tuple[Place, LiveGateway]) -> None:
    place, running = used
    with running.client() as client:
        over_http = client.get("/v1/sessions/agent:main:talk").json()
    shown = place.json("show", "agent:main:talk")
    [listed] = [one for one in place.json("list")["sessions"] if one["key"] == "agent:main:talk"]
    exported, *messages = map(json.loads, place.openclaw("export", "agent:main:talk").stdout.splitlines())
    assert shown == over_http
    assert listed == {name: over_http[name] for name in listed}
    assert exported == {**listed, "branches": over_http["branches"]}
    assert set(listed["usage"]) == {"input_tokens", "output_tokens", "cached_tokens", "cost"}
    assert datetime.fromisoformat(listed["created_at"]) <= datetime.fromisoformat(listed["last_used_at"])
    of_both = over_http["messages"][0].keys()
    assert [{name: one[name] for name in of_both} for one in messages] == over_http["messages"]


@pytest.mark.parametrize("command", [("list",), ("show", "talk"), ("export", "--all")])
def test_stored_sessions_need_no_secrets_of_gateway(used: tuple[Place, LiveGateway], command: tuple[str, ...]) -> None:
    place, _ = used
    config = json.loads(json.dumps(place.config))
    config["gateway"]["auth"]["token"] = "${NOT_SET_TOKEN}"
    config["models"]["providers"]["openai"] = {"baseUrl": "https://api.openai.com/v1", "apiKey": "${NOT_SET_KEY}"}
    config["agents"]["list"][1]["instructions"] = "${NOT_SET_TEXT}"
    bare = Place(place.directory, config)
    try:
        done = bare.openclaw(*command)
    finally:
        (place.directory / "openclaw.json").write_bytes(orjson.dumps(place.config))
    assert (done.returncode, done.stderr) == (0, "")
    assert "agent:main:talk" in done.stdout


def test_unset_variable_of_database_is_reported(tmp_path: Path) -> None:
    done = Place(tmp_path / "none", {**scripted_config(), "state": {"url": "${NOT_SET_URL}"}}).openclaw("list")
    assert done.returncode == 1
    assert "NOT_SET_URL" in done.stderr


def test_short_key_means_session_of_one_agent_that_has_it(used: tuple[Place, LiveGateway]) -> None:
    place, _ = used
    assert place.json("show", "talk")["key"] == "agent:main:talk"
    assert place.json("show", "tools")["key"] == place.json("show", "tools", "--agent", "Beta")["key"]
    assert place.json("show", "both", "--agent", "beta")["key"] == "agent:beta:both"
    lines = place.openclaw("export", "talk", "agent:main:talk", "both", "--agent", "main").stdout.splitlines()
    exported = [line["key"] for line in map(json.loads, lines) if line["object"] == "session"]
    assert exported == ["agent:main:talk", "agent:main:both"]
    lines = place.openclaw("export", "--all", "--agent", "beta").stdout.splitlines()
    exported = [line["key"] for line in map(json.loads, lines) if line["object"] == "session"]
    assert sorted(exported) == ["agent:beta:both", "agent:beta:tools"]


def test_short_key_deletes_one_session_and_prints_its_key(place: Place) -> None:
    with live_gateway(place.directory, place.config) as running, running.client() as client:
        for agent in ("main", "beta"):
            ask(client, "hi", headers={SESSION_KEY: "both", "x-openclaw-agent-id": agent})
    result = place.json("delete", "both", "--agent", "beta", "--yes")
    assert result == {"ok": True, "deleted": ["agent:beta:both"], "messages": 2}
    assert place.openclaw("delete", "both", "--yes").stdout == "Deleted agent:main:both.\n"
    assert place.listed() == []


def test_delete_asks_for_confirmation(used: tuple[Place, LiveGateway]) -> None:
    place, _ = used
    for typed in ("", "n\n"):
        asked = place.openclaw("delete", "agent:main:talk", typed=typed)
        assert asked.returncode == 1
        assert asked.stdout == ""
        assert "Delete the session agent:main:talk with 4 messages?" in asked.stderr
    assert "agent:main:talk" in place.listed()


def test_ctrl_c_at_prompt_deletes_nothing_and_exits_with_130(used: tuple[Place, LiveGateway]) -> None:
    place, _ = used
    place.listed()  # writes the configuration
    with started(
        [sys.executable, "-m", "service", "sessions", "delete", "talk"],
        env=place.environment(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        output = b""
        while b"cannot be undone" not in output:
            byte = process.stderr.read(1)
            assert byte, output
            output += byte
        time.sleep(0.2)  # until it waits at the prompt
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert "agent:main:talk" in place.listed()


def test_session_in_use_is_not_deleted(used: tuple[Place, LiveGateway]) -> None:
    place, running = used
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    headers = {SESSION_KEY: "both", "x-openclaw-model": "scripted/stuck", "Authorization": f"Bearer {TOKEN}"}
    url = f"{running.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as response:
        lines = response.iter_lines()  # closes the connection when it is collected
        assert next(lines).startswith("data: ")
        done = place.openclaw("delete", "agent:main:both", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "The session agent:main:both has an active run" in done.stderr
    assert "agent:main:both" in place.listed()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show", "nope", "--json"), "session_not_found"),
        (("delete", "nope", "--yes", "--json"), "session_not_found"),
        (("show", "both", "--json"), "invalid_value"),
    ],
)
def test_failure_in_json_has_code_of_the_gateway(
    used: tuple[Place, LiveGateway], arguments: tuple[str, ...], code: str
) -> None:
    done = used[0].openclaw(*arguments)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, code)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "agent:main:nobody"), "Unknown session agent:main:nobody"),
        (("show", "x\udcff\n"), "Invalid value for 'KEY': it is not valid UTF-8."),
        (("show", "both"), "Several agents have a session both: agent:main:both, agent:beta:both."),
    ],
)
def test_failure_to_store_is_reported(used: tuple[Place, LiveGateway], arguments: tuple[str, ...], words: str) -> None:
    done = used[0].openclaw(*arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("delete", "agent:main:nobody", "--yes"), "Unknown session"),
        (("export", "agent:main:nobody"), "Unknown session"),
        (("export",), "or use --all"),
        (("show", "talk", "--agent", "beta"), "Unknown session talk of the agent beta"),
        (("show", "agent:main:talk", "--agent", "beta"), "Unknown session agent:main:talk of the agent beta"),
        (("show", "talk", "--agent", "nobody"), "Unknown session talk of the agent nobody"),
        (("delete", "talk", "nothing", "--yes"), "Unknown session nothing"),
        (("show", "cron:1"), "Unknown session cron:1"),
        (("delete", "both", "--yes"), "or add --agent ID"),
        (("delete",), "Missing argument"),
    ],
)
def test_other_failures_are_reported_in_same_form(
    used: tuple[Place, LiveGateway], arguments: tuple[str, ...], words: str
) -> None:
    foreign = dict.fromkeys(name for name in os.environ if name.startswith("OPENCLAW_"))
    done = CliRunner().invoke(openclaw, ["sessions", *arguments], env={**foreign, **used[0].environment()})
    assert done.exit_code != 0
    assert isinstance(done.exception, SystemExit)
    assert words in done.stderr


def test_unusable_database_is_reported(tmp_path: Path) -> None:
    place = Place(tmp_path, {**scripted_config(), "state": {"url": "postgresql://nobody:secret@127.0.0.1:1/x"}})
    done = place.openclaw("list")
    assert done.returncode == 1
    assert "The database of state.url or OPENCLAW_STATE_URL cannot be used" in done.stderr
    assert "secret" not in done.stderr
    done = place.openclaw("list", "--json")
    result = json.loads(done.stdout)
    assert (done.returncode, result["ok"], result["error"]["type"]) == (1, False, "cli_error")
    assert "The database of state.url or OPENCLAW_STATE_URL cannot be used" in result["error"]["message"]


def test_prune_dry_run_lists_what_prune_deletes(place: Place) -> None:
    with live_gateway(place.directory, place.config) as running, running.client() as client:
        ask(client, "hi")
        ask(client, "hi", headers={SESSION_KEY: "one"})
        ask(client, "hi", headers={SESSION_KEY: "two"})
    place.config["session"] = {"maintenance": {"mode": "warn", "maxEntries": 1}}
    result = place.json("prune", "--dry-run")["sessions"]
    assert result == [{"key": "agent:main:one", "reason": "more than 1 sessions of main"}]
    assert len(place.listed()) == 3
    assert place.json("prune")["deleted"] == {"sessions": 1, "runs": 0, "idempotencyKeys": 0}
    assert "agent:main:two" in place.listed()
    assert len(place.listed()) == 2
    assert place.openclaw("prune", "--dry-run").stdout == "Nothing to delete.\n"
