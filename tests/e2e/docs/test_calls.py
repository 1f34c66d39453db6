"""Commands and programs in the documents and examples work as they are written, against a live gateway."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.documents import ROOT, Block, at_address, blocks, reader_environment, succeed, succeed_in_shell
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config

#: What installs, or serves until it is stopped, and the tutorial, which has a test of its own.
_NOT_RUN = re.compile(r"bin/tox|pip install")
_TUTORIAL = ROOT / "docs" / "getting-started.md"

COMMANDS = [block for block in blocks("sh") if block.document != _TUTORIAL and not _NOT_RUN.search(block.text)]
PROGRAMS = [block for block in blocks("python") if block.calls_gateway and not block.needs_more_libraries]
EXAMPLES = sorted([*ROOT.glob("examples/*.py"), *ROOT.glob("examples/*.sh")])


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    """Agents that call the caller's functions and otherwise repeat what was said."""
    config = scripted_config()
    config["agents"]["defaults"]["model"] = "scripted/tools"
    return config | {"tools": {"allow": []}}


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory, configuration: dict[str, Any]) -> Iterator[LiveGateway]:
    """A gateway of this module's own, since commands change its configuration."""
    with live_gateway(tmp_path_factory.mktemp("documented"), configuration) as running:
        yield running


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_commands_in_document_succeed(block: Block, documented: LiveGateway) -> None:
    text = block.at(documented.address).replace(".tox/gateway/bin/openclaw", "openclaw")
    shown = succeed_in_shell(text, reader_environment(documented), documented.directory)
    assert '"error":{' not in shown
    assert not block.calls_gateway or '"object"' in shown


def test_readme_reads_the_token_of_the_gateway_it_started(documented: LiveGateway) -> None:
    [block] = [block for block in COMMANDS if block.document.name == "README.md" and "export" in block.text]
    text = block.text.replace(".tox/gateway/bin/openclaw", "openclaw")
    environment = reader_environment(documented) | {"OPENCLAW_GATEWAY_TOKEN": ""}
    shown = succeed_in_shell(f'{text}\nprintf %s "$OPENCLAW_GATEWAY_TOKEN"', environment, documented.directory)
    assert shown == TOKEN


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_program_in_document_prints_an_answer(block: Block, documented: LiveGateway) -> None:
    text = block.at(documented.address)
    assert succeed([sys.executable, "-c", text], reader_environment(documented), documented.directory).strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_prints_an_answer(path: Path, documented: LiveGateway) -> None:
    command = [str(path)] if path.suffix == ".sh" else [sys.executable, str(path)]
    shown = succeed(command, reader_environment(documented), documented.directory)
    expected = {
        "chat.py": "hi\n",
        "stream.py": "hi\n(",
        "session.py": "> My name is Anna.\nMy name is Anna.\n> What is my name?\n",
        "tool_call.py": '(the model calls current_time {})\n{"utc": ',
        "curl.sh": "# one answer\n",
    }
    assert shown.startswith(expected[path.name])


def test_example_with_curl_shows_stream_session_and_error(documented: LiveGateway) -> None:
    shown = succeed([str(ROOT / "examples" / "curl.sh")], reader_environment(documented), documented.directory)
    _, answer, stream, session, error = re.split(r"^# .*\n", shown, flags=re.MULTILINE)
    assert '"object":"chat.completion"' in answer
    assert "data: [DONE]" in stream
    assert session.count('"finish_reason":"stop"') == 2
    assert '"code":"invalid_value"' in error


def test_address_is_replaced_whichever_port_is_documented() -> None:
    assert at_address("127.0.0.1:18789 127.0.0.1:19001", ("127.0.0.1", 7)) == "127.0.0.1:7 127.0.0.1:7"


def test_error_is_as_documented(documented: LiveGateway) -> None:
    [shown] = [block for block in blocks("json") if '"error"' in block.text]
    with documented.client() as client:
        body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 3}
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.json() == json.loads(shown.text)
