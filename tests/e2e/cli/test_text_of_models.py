"""What a model says, on a terminal without what that would interpret, and elsewhere as it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import Home
from support.live import stubbed_config
from support.terminal import Terminal
from support.upstream import Exchange, Upstream

#: A colour, a title and a clipboard that are split between pieces, C1 controls, and an order that is reversed.
PIECES = (
    "a \x1b",
    "[31mred",
    " \x1b]0;evil",
    "\x07 \x1b]52;c;ZXZpbA==\x1b\\",
    " \x9b2J\x85 \x08\x7f",
    " \u202eb\u200b",
)
#: What needs no cleaning: joined letters, a joined emoji, blanks of typography, a new emoji, a picture of a font.
HARMLESS = " می\u200cشود \U0001f469\u200d\U0001f4bb a\u00a0b\u3000c\td \U0001fae8\ue0b0\n"
TEXT = "".join(PIECES) + HARMLESS
INTERPRETED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202e]")


def speak(exchange: Exchange) -> None:
    exchange.head()
    for piece in (*PIECES, HARMLESS):
        exchange.event({"content": piece})
    exchange.end()


@pytest.fixture
def home(tmp_path: Path, module_upstream: Upstream) -> Home:
    module_upstream.answers["speak"] = speak
    home = Home(tmp_path, {})
    home.write(stubbed_config(module_upstream.url, "stub/speak"))
    return home


def shown_on_terminal(home: Home, *arguments: str) -> str:
    terminal = Terminal(arguments, home.directory, home.environment(NO_COLOR="1"))
    assert terminal.wait() == 0
    return terminal.shown


def read_from_pipe(home: Home, *arguments: str, given: bytes = b"") -> bytes:
    command = [sys.executable, "-m", "service", *arguments]
    done = subprocess.run(command, env=home.environment(), input=given, capture_output=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_answer_is_cleaned_on_terminals_alone(home: Home, options: tuple[str, ...]) -> None:
    command = ("agent", "--local", "hi", *options)
    shown = shown_on_terminal(home, *command)
    assert INTERPRETED.search(shown) is None
    assert shown.startswith("a \ufffd[31mred \ufffd]0;evil\ufffd ")
    assert HARMLESS in shown
    assert read_from_pipe(home, *command) == f"{TEXT}\n".encode()


def test_answers_of_a_conversation_are_cleaned_on_terminals_alone(home: Home) -> None:
    terminal = Terminal(["chat", "--local"], home.directory, home.environment(NO_COLOR="1"))
    terminal.type_after("you> ", "hi")
    terminal.type_after("you> ", "/exit")
    assert terminal.wait() == 0
    assert "\ufffd[31mred \ufffd]0;evil\ufffd " in terminal.shown
    assert not any(sequence in terminal.shown for sequence in ("\x1b[31m", "\x1b]", "\x9b", "\u202e"))
    assert TEXT.encode() in read_from_pipe(home, "chat", "--local", given=b"hi\n")


def test_json_means_the_same_on_terminals(home: Home) -> None:
    command = ("agent", "--local", "--json", "hi")
    shown, read = shown_on_terminal(home, *command), read_from_pipe(home, *command)
    assert INTERPRETED.search(shown) is None
    assert json.loads(shown)["payloads"] == json.loads(read)["payloads"] == [{"text": TEXT, "mediaUrl": None}]
    assert "\x9b2J\x85".encode() in read


def test_stored_text_is_cleaned_on_terminals(home: Home) -> None:
    read_from_pipe(home, "agent", "--local", TEXT)
    for command in ("list", "list --json", "show main", "show main --json", "export main", "delete main --yes"):
        shown = shown_on_terminal(home, "sessions", *command.split())
        assert INTERPRETED.search(shown) is None, command
        assert "main" in shown


@pytest.mark.parametrize("model", ["stub/refuse", "no\x9bwhere/\x1b]0;evil\x07x"])
def test_error_is_cleaned_on_terminals(home: Home, module_upstream: Upstream, model: str) -> None:
    module_upstream.answers["refuse"] = lambda exchange: exchange.json(400, {"error": {"message": TEXT}})
    for command in ("agent", "chat"):
        given = ["hi"] if command == "agent" else []
        terminal = Terminal(
            [command, *given, "--local", "--model", model], home.directory, home.environment(NO_COLOR="1")
        )
        if command == "chat":
            terminal.type_after("you> ", "hi")
            terminal.type_after("you> ", "/exit")
        terminal.wait()
        assert "Error: " in terminal.shown
        assert not any(sequence in terminal.shown for sequence in ("\x1b[31m", "\x1b]", "\x9b", "\u202e"))
