"""Attacks on the gateway's own files in a workspace, by every file tool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.workspace_tools import FILE_TOOLS

from service.config.source import Locations
from service.core.concurrency import deadline
from service.tools.process_slots import ProcessSlots
from service.tools.tool import Tool, ToolContext, ToolError
from service.tools.workspace.hidden_files import HiddenFiles
from service.tools.workspace.search import FindTool, GrepTool

GENEROUS_SECONDS = 30
SECRET = "a-token-nobody-may-read"
TOOLS: dict[str, Tool] = {**FILE_TOOLS, "find": FindTool(ProcessSlots()), "grep": GrepTool(ProcessSlots())}


COPIES = (
    "openclaw.json.bak",
    ".openclaw.json.x7d2",
    ".openclaw.json.swp",
    "openclaw.json~",
    "openclaw.json.~1~",
    "#openclaw.json#",
)


class Home(NamedTuple):
    """A home directory that is a workspace, with the gateway's state directory and configuration in it."""

    path: Path
    config: Path
    state: Path

    def use(self, tool: str, **arguments: Any) -> str:
        context = ToolContext("main", self.path, "agent:main:x", "run", hidden=(self.config, self.state))
        with deadline(GENEROUS_SECONDS):
            return TOOLS[tool].run(arguments, context)

    def refused(self, tool: str, **arguments: Any) -> str:
        with pytest.raises(ToolError) as caught:
            self.use(tool, **arguments)
        return str(caught.value)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    path = tmp_path / "home"
    state = path / ".openclaw"
    (state / "logs").mkdir(parents=True)
    config = path / "etc" / "openclaw.json"
    config.parent.mkdir()
    for file in (config, state / "sessions.sqlite", state / "logs" / "model.log"):
        file.write_text(json.dumps({"token": SECRET}))
    (path / "notes.txt").write_text("nothing secret\n")
    return Home(path, config, state)


@pytest.fixture
def mounts() -> Iterator[list[Path]]:
    mounted: list[Path] = []
    yield mounted
    for path in reversed(mounted):
        subprocess.run(["umount", str(path)], check=True)


def as_is(_home: Home) -> list[str]:
    return ["etc/openclaw.json", ".openclaw/sessions.sqlite", ".openclaw/logs/model.log"]


def by_parent(home: Home) -> list[str]:
    (home.path / "sub").mkdir()
    return [f"sub/../{path}" for path in as_is(home)]


def by_absolute_path(home: Home) -> list[str]:
    return [str(home.path / path) for path in as_is(home)]


def by_symbolic_link(home: Home) -> list[str]:
    (home.path / "file-link").symlink_to("etc/openclaw.json")
    (home.path / "directory-link").symlink_to(".openclaw")
    return ["file-link", "directory-link/sessions.sqlite", "directory-link/logs/model.log"]


def by_hard_link(home: Home) -> list[str]:
    names = [f"hard-{number}" for number in range(3)]
    for name, path in zip(names, as_is(home), strict=True):
        (home.path / name).hardlink_to(home.path / path)
    return names


def by_copy_beside(home: Home) -> list[str]:
    """Backups, what editors leave, and the file that an edit of the configuration will put in its place."""
    names = [f"etc/{name}" for name in COPIES]
    for name in names:
        shutil.copy(home.config, home.path / name)
    return names


WAYS: list[Callable[[Home], list[str]]] = [
    as_is,
    by_parent,
    by_absolute_path,
    by_symbolic_link,
    by_hard_link,
    by_copy_beside,
]


@pytest.mark.parametrize("way", WAYS)
def test_own_file_is_neither_read_nor_changed(home: Home, way: Callable[[Home], list[str]]) -> None:
    paths = way(home)
    before = [(home.path / path).read_text() for path in paths]
    for path in paths:
        assert SECRET not in home.refused("read", path=path)
        assert SECRET not in home.refused("edit", path=path, old_text="token", new_text="tools")
        home.refused("write", path=path, content="{tools: {profile: 'full'}}")
        home.refused("grep", pattern=".", path=path)
    assert [(home.path / path).read_text() for path in paths] == before


@pytest.mark.parametrize("way", WAYS)
def test_own_file_is_neither_found_nor_listed(home: Home, way: Callable[[Home], list[str]]) -> None:
    way(home)
    assert SECRET not in home.use("grep", pattern="token")
    found = home.use("find", pattern="**/*")
    listed = home.use("ls") + home.use("ls", path="etc")
    for name in ("sessions.sqlite", "model.log", "openclaw.json", "hard-"):
        assert name not in found
        assert name not in listed
    assert "notes.txt" in found
    assert "notes.txt" in listed


def test_bind_of_parent_does_not_show_own_files(home: Home, mounts: list[Path]) -> None:
    elsewhere = home.path.parent / "workspace"
    (elsewhere / "bound").mkdir(parents=True)
    mounted = subprocess.run(["mount", "--bind", str(home.path), str(elsewhere / "bound")], check=False)
    if mounted.returncode:
        pytest.skip("bind mounts need root")
    mounts.append(elsewhere / "bound")
    outside = home._replace(path=elsewhere)
    for path in as_is(home):
        outside.refused("read", path=f"bound/{path}")
        outside.refused("write", path=f"bound/{path}", content="x")
    assert SECRET not in outside.use("grep", pattern="token")
    assert "sqlite" not in outside.use("find", pattern="**/*")


def test_missing_configuration_is_not_created(home: Home) -> None:
    home.config.unlink()
    assert "belongs to the gateway" in home.refused("write", path="etc/openclaw.json", content="{}")
    assert not home.config.exists()


def test_missing_state_directory_is_not_created(home: Home) -> None:
    shutil.rmtree(home.state)
    assert "belongs to the gateway" in home.refused("write", path=".openclaw/credentials/x", content="{}")
    assert not home.state.exists()


def test_replaced_configuration_stays_hidden(home: Home) -> None:
    replacement = home.path / "replacement"
    replacement.write_text(json.dumps({"token": SECRET}))
    replacement.replace(home.config)
    home.refused("read", path="etc/openclaw.json")


def test_copies_are_hidden_from_commands_unless_they_hold_workspace(home: Home) -> None:
    by_copy_beside(home)
    (home.path / "etc" / "openclaw.json.link").symlink_to("/usr")
    for backup in (".openclaw.bak", ".openclaw.old"):
        (home.path / backup / "work").mkdir(parents=True)
    found = HiddenFiles([home.config, home.state]).paths_with_copies(f"{home.path}/.openclaw.old/work")
    names = {*(f"etc/{name}" for name in COPIES), "etc/openclaw.json", ".openclaw", ".openclaw.bak"}
    assert set(found) == {str(home.path / name) for name in names}


def test_environment_of_service_is_private(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    locations = Locations(tmp_path / "openclaw.json", tmp_path / "state", dev=False, environment_path=file)
    assert file not in locations.private_paths
    file.write_text(f"TOKEN={SECRET}")
    assert set(locations.private_paths) == {tmp_path / "openclaw.json", tmp_path / "state", file}


def test_workspace_inside_state_directory_is_used(home: Home) -> None:
    workspace = home.state / "workspace"
    inside = home._replace(path=workspace)
    assert "Created" in inside.use("write", path="a/b.txt", content="tea\n")
    assert "tea" in inside.use("read", path="a/b.txt")
    assert inside.use("grep", pattern="tea") == "a/b.txt:1: tea"
    assert "a/" in inside.use("ls")


def test_workspace_that_is_state_directory_shows_nothing(home: Home) -> None:
    inside = home._replace(path=home.state)
    for tool, arguments in (("ls", {}), ("read", {"path": "sessions.sqlite"}), ("find", {"pattern": "*"})):
        assert "belongs to the gateway" in inside.refused(tool, **arguments)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc")
def test_root_directory_as_workspace_does_not_show_environments(home: Home) -> None:
    root = home._replace(path=Path("/"))
    for path in ("proc/self/environ", f"proc/{os.getpid()}/environ", "/proc/self/cmdline", "proc"):
        root.refused("read", path=path)
    root.refused("ls", path="proc")
    assert "proc/" not in root.use("ls").splitlines()


@pytest.mark.parametrize(
    "named",
    [".openclaw", ".openclaw/", ".openclaw/.", ".openclaw/logs/..", "link", "link/logs/..", "through/.openclaw"],
)
def test_a_directory_is_known_by_its_real_path(home: Home, named: str) -> None:
    (home.path / "link").symlink_to(".openclaw")
    (home.path / "through").symlink_to(".")
    assert HiddenFiles([home.path / named]).paths == (str(home.state.resolve()),)


def test_private_path_through_a_directory_that_is_gone_stays_private(home: Home) -> None:
    (home.path / "private.json").write_text(SECRET)
    through = home._replace(config=home.path / "gone/../private.json")
    for path in ("private.json", "private.json.bak"):
        assert "belongs to the gateway" in through.refused("read", path=path)
