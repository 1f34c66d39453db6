"""The parts of the Gateway that depend on the configuration, replaced during runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import support
from support.polling import until
from support.processes import command_of, running_children
from support.transcripts import Transcripts

from service.config.schema import parse_config
from service.config.source import Locations
from service.core import concurrency
from service.gateway.build import open_runtime
from service.gateway.runtime import Runtime, RuntimeSlot
from service.tools.process_slots import ToolSlots

RAW_SERVER = str(Path(support.__file__).with_name("mcp_raw_server.py"))


def servers() -> set[int]:
    """The processes of the MCP servers that run, their guards included."""
    return {child.pid for child in running_children() if RAW_SERVER in command_of(child)}


Open = Callable[..., Runtime]


@pytest.fixture
def open_some(tmp_path: Path) -> Iterator[Open]:
    store = Transcripts.open(tmp_path / "sessions.sqlite")

    def open_one(mark: str, **agent: Any) -> Runtime:
        """Runtime whose MCP server is configured with `mark`."""
        server = {"command": sys.executable, "args": [RAW_SERVER, "wild"], "env": {"MARK": mark}}
        agents = {"list": [{"id": "main", "tools": {"allow": ["raw__*"]}, **agent}]}
        config, _ = parse_config({"mcp": {"servers": {"raw": server}}, "agents": agents})
        return open_runtime(config, store, Locations(tmp_path / "openclaw.json", tmp_path, dev=False), {}, ToolSlots())

    yield open_one
    store.close()


def use(parts: Runtime) -> None:
    """Have the MCP server of `parts` running and its tools listed, which may take longer than a run waits."""
    until(lambda: len(parts.toolboxes.of(parts.roster.default).functions()) > 0)


def test_unchanged_servers_survive_reload(open_some: Open) -> None:
    slot = RuntimeSlot(open_some("x"))
    use(slot.current)
    first = servers()
    slot.replace(open_some("x"))
    use(slot.current)
    assert servers() == first
    slot.replace(open_some("y"))
    until(lambda: servers() == set())
    use(slot.current)
    assert servers()
    assert not servers() & first
    slot.close()
    slot.close()
    assert servers() == set()


def test_server_of_run_is_closed_after_it_even_if_adopted_by_later_configuration(open_some: Open) -> None:
    slot = RuntimeSlot(open_some("x"))
    with ExitStack() as run:
        held = run.enter_context(slot.lease())
        use(held.runtime)
        first = servers()
        slot.replace(open_some("x"))  # adopts the server
        slot.replace(open_some("y"))  # has no use for it
        concurrency.sleep(0.3)
        assert servers() == first
        use(held.runtime)
    until(lambda: servers() == set())
    slot.close()


def test_roster_is_replaced_and_leased_one_is_kept(open_some: Open) -> None:
    slot = RuntimeSlot(open_some("x", name="Old"))
    with slot.lease() as held:
        slot.replace(open_some("x", name="New"))
        assert (held.runtime.roster.default.name, slot.current.roster.default.name) == ("Old", "New")
    slot.close()
