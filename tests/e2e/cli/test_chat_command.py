"""`openclaw chat`: a conversation in the terminal, and what the shell completes."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest
from support.command import Home
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.preloaded import run

SLOW = "scripted/slow"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path, {})
    home.write(scripted_config())
    return home


def test_each_line_is_a_turn_of_one_session(home: Home) -> None:
    done = home.run("chat", "--local", text="one\ntwo\\\nthree\n\n/new\n/help\nfour\n/exit\nfive\n")
    assert (done.status, done.out) == (0, "one\ntwo\nthree\nfour\n")
    assert "/new begins" in done.err
    sessions = home.run("sessions", "list", "--json").json["sessions"]
    counts = {one["key"].split(":")[-1].partition("-")[0]: one["message_count"] for one in sessions}
    assert counts == {"main": 4, "chat": 2}


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("/etc/hosts what is it", "/etc/hosts what is it"),
        ("/etc/", "/etc/"),
        ("/ is the root", "/ is the root"),
        ("//new", "/new"),
        ("//etc is a directory", "/etc is a directory"),
        ("// a comment", "// a comment"),
        ("//", "//"),
    ],
)
def test_message_may_begin_with_a_slash(home: Home, line: str, sent: str) -> None:
    done = home.run("chat", "--local", text=f"{line}\n")
    assert (done.status, done.out) == (0, f"{sent}\n")
    assert "/new begins" not in done.err


@pytest.mark.parametrize("line", ["/huh", "/model echo", "/new topic"])
def test_unknown_command_is_not_sent_and_says_how(home: Home, line: str) -> None:
    done = home.run("chat", "--local", text=f"{line}\nhello\n")
    assert (done.status, done.out) == (1, "hello\n")
    assert f"Write /{line.split(maxsplit=1)[0]} to send it" in done.err


def test_failed_turn_is_reported_and_the_conversation_goes_on(home: Home) -> None:
    failing = "scripted/fail-provider_rejected_request"
    done = home.run("chat", "--local", "--model", failing, text="one\n")
    assert (done.status, done.out) == (1, "")
    assert "Error: " in done.err


@pytest.mark.parametrize("is_local", [True, False])
def test_interrupts_stop_answers_and_not_the_conversation(tmp_path: Path, is_local: bool) -> None:
    """In a terminal of its own, where Ctrl-C reaches the command as it does for people."""
    with live_gateway(tmp_path, scripted_config()) as running:
        command = [sys.executable, "-m", "service", "chat", "--model", SLOW, *(["--local"] if is_local else [])]
        process, terminal = pty.fork()
        if process == 0:
            os.execve(command[0], command, {**environment_of(running), "TERM": "dumb"})
        shown = Screen(terminal)
        for _ in range(2):
            shown.wait_for("you> ")
            os.write(terminal, b"go\n")
            shown.wait_for("This answer")
            os.write(terminal, b"\x03")
            assert "before it ends" not in shown.wait_for("Stopped.")
        shown.wait_for("you> ")
        os.write(terminal, b"go\n")
        shown.wait_for("before it ends.")
        assert "Stopped." not in shown.wait_for("you> ")
        os.write(terminal, b"\x04")
        _, status = os.waitpid(process, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0


def environment_of(running: LiveGateway) -> dict[str, str]:
    """The environment of a command for this gateway, or its state."""
    config_path = str(running.directory / "openclaw.json")
    url = {"OPENCLAW_GATEWAY_URL": running.url, "OPENCLAW_GATEWAY_TOKEN": TOKEN}
    return {**os.environ, **url, "OPENCLAW_CONFIG_PATH": config_path, "OPENCLAW_STATE_DIR": str(running.state_dir)}


class Screen:
    """What a terminal has shown."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._text = ""

    def wait_for(self, text: str) -> str:
        """Read up to `text`, and return what was before it."""
        give_up_at = time.monotonic() + 60
        while text not in self._text:
            assert select.select([self._terminal], [], [], max(0, give_up_at - time.monotonic()))[0], self._text
            self._text += os.read(self._terminal, 4096).decode(errors="replace")
        before, _, self._text = self._text.partition(text)
        return before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("agent --agent b", ["beta"]),
        ("chat --agent ", ["main", "beta"]),
        ("agent --model scripted/e", ["scripted/echo"]),
        ("chat --session-key agent:main", ["agent:main:main"]),
    ],
    ids=["agent", "agents", "model", "session"],
)
def test_shell_completes_what_there_is(home: Home, words: str, expected: list[str]) -> None:
    home.run("chat", "--local", text="hi\n")
    environment = {
        "_OPENCLAW_COMPLETE": "zsh_complete",
        "COMP_WORDS": f"openclaw {words}",
        "COMP_CWORD": str(len(f"openclaw {words}".split(" ")) - 1),
    }
    done = run((), cwd=home.directory, env=home.environment(**environment))
    assert done.stdout.split("\n")[1:-1:3] == expected
