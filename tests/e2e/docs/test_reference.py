"""The tables of the documents are complete: error codes, tools, methods, commands, models' variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import click
import pytest
from support.documents import ROOT

from service.api.metrics.tallies import DIRECTORY_KEY
from service.api.websocket.methods import ROWS
from service.cli import openclaw
from service.core.errors import KINDS
from service.models.known_hosts import KNOWN_HOSTS
from service.server.metrics_listener import LISTENER_KEY
from service.tools.policy import DEFAULT_TOOLS, GROUPS, PROFILES

#: Codes that only the WebSocket sends.
WEBSOCKET_ONLY = {"protocol_mismatch", "missing_scope", "unknown_method", "too_many_requests", "run_failed"}

#: Set by the gateway itself, for the child process of the embedded model.
EMBEDDED_KEY = "OPENCLAW_EMBEDDED_MODEL_KEY"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def row_with(text: str, word: str) -> str:
    """The one row of a table that has `word` in its first column."""
    rows = [line for line in text.splitlines() if line.startswith("|") and f"`{word}`" in line.split(" | ")[0]]
    assert len(rows) == 1, rows
    return rows[0]


@pytest.mark.parametrize("code", sorted(KINDS.keys() - WEBSOCKET_ONLY))
def test_error_code_is_listed_under_its_status(code: str) -> None:
    rows = [line for line in page("http-api.md").splitlines() if line.startswith("| ") and f"`{code}`" in line]
    assert any(str(KINDS[code].status) in row.split("|")[1] for row in rows), rows


@pytest.mark.parametrize("code", sorted(WEBSOCKET_ONLY))
def test_error_code_of_websocket_is_listed(code: str) -> None:
    assert f"`{code.upper()}`" in page("websocket.md")


@pytest.mark.parametrize("tool", sorted({name for names in GROUPS.values() for name in names if "*" not in name}))
def test_tool_is_listed_with_its_default(tool: str) -> None:
    assert row_with(page("tools.md"), tool).endswith("| yes |" if tool in DEFAULT_TOOLS else "| no |")


@pytest.mark.parametrize("word", sorted([*PROFILES, *(name for name, tools in GROUPS.items() if tools)]))
def test_profile_and_group_is_explained(word: str) -> None:
    assert f"`{word}`" in page("tools.md")


@pytest.mark.parametrize("method", [row.name for row in ROWS])
def test_websocket_method_is_listed_with_its_scope(method: str) -> None:
    [scope] = [row.scope for row in ROWS if row.name == method]
    assert scope.removeprefix("operator.") in row_with(page("websocket.md"), method).split("|")[2]


def commands_of(commands: Mapping[str, click.Command], path: str) -> Iterator[tuple[str, str]]:
    for name, command in commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command.commands, f"{path} {name}")
        else:
            yield path, name


@pytest.mark.parametrize(("path", "name"), sorted(commands_of(openclaw.load_all(), "openclaw")))
def test_command_is_listed(path: str, name: str) -> None:
    rows = [line for line in page("command-line.md").splitlines() if line.startswith(f"| `{path} ")]
    assert any(re.search(rf"[` ]{name}[` ]", row) for row in rows), rows


@pytest.mark.parametrize("provider", sorted(KNOWN_HOSTS))
def test_known_provider_is_listed_with_its_variable(provider: str) -> None:
    assert KNOWN_HOSTS[provider].variable in row_with(page("models.md"), provider)


def test_every_logger_is_listed() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "service").rglob("*.py")]
    names = {name for text in sources for name in re.findall(r'getLogger\("(openclaw\.\w+)', text)}
    assert names
    assert [name for name in sorted(names) if f"`{name}`" not in page("operations.md")] == []


def test_every_variable_is_explained() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "service").rglob("*.py")]
    variables = {name for text in sources for name in re.findall(r"\bOPENCLAW_[A-Z_]*[A-Z]\b", text)} - {
        EMBEDDED_KEY,
        DIRECTORY_KEY,
        LISTENER_KEY,
    }
    assert variables
    assert [name for name in sorted(variables) if f"`{name}`" not in page("configuration.md")] == []
