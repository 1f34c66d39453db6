"""An agent that changes what the workspace of another agent, inside its own, stands for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.workspace_tools import FILE_TOOLS, refusal, use

from service.config.roster import Roster
from service.config.schema import Config, parse_config
from service.config.tools import GlobalExecConfig
from service.core.processes.command import Command, run_command
from service.core.processes.sandbox import Sandbox, find_sandboxes
from service.tools.exec import ExecTool
from service.tools.policy_checks import tool_warnings
from service.tools.process_slots import ProcessSlots
from service.tools.workspace.search import FindTool, GrepTool

TOOLS: tuple[tuple[Any, dict[str, Any]], ...] = (
    *(
        (FILE_TOOLS[name], {"path": "secret.txt", "content": "x", "old_text": "secret", "new_text": "x"})
        for name in ("read", "write", "edit")
    ),
    (FILE_TOOLS["write"], {"path": "new/deep.txt", "content": "x"}),
    (FILE_TOOLS["ls"], {}),
    (FindTool(ProcessSlots()), {"pattern": "*"}),
    (GrepTool(ProcessSlots()), {"pattern": "secret"}),
    (ExecTool(os.environ, GlobalExecConfig(sandbox="off")), {"command": "cat secret.txt; touch new"}),
)


def config_of(outer: Path, inner: Path, **tools: Any) -> Config:
    listed = [
        {"id": "coder", "workspace": str(outer), "tools": tools or {"allow": ["exec"]}},
        {"id": "docs", "workspace": str(inner), "tools": {"allow": ["read", "write", "ls"]}},
    ]
    return parse_config({"agents": {"list": listed}})[0]


def root_of(config: Config, agent_id: str = "docs") -> Path:
    root = Roster.from_config(config).resolve(None, agent_id).workspace_root
    assert root is not None
    return root


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    victim = tmp_path / "home"
    victim.mkdir()
    (victim / "secret.txt").write_text("the secret")
    return victim


def check_kept(victim: Path, workspace: Path) -> None:
    for tool, arguments in TOOLS:
        taken = {name: value for name, value in arguments.items() if name in tool.parameters["properties"]}
        assert "The workspace cannot be used: in its path is a symbolic link" in refusal(workspace, tool, **taken)
    assert [path.name for path in victim.iterdir()] == ["secret.txt"]
    assert (victim / "secret.txt").read_text() == "the secret"


@pytest.mark.parametrize("inner", ["docs", "docs/deeper"])
@pytest.mark.parametrize("exists", [True, False])
def test_link_in_place_of_nested_workspace_is_not_followed(
    tmp_path: Path, victim: Path, inner: str, *, exists: bool
) -> None:
    code = tmp_path / "code"
    (code / inner if exists else code).mkdir(parents=True)
    config = config_of(code, code / inner)
    workspace = root_of(config)
    if exists:
        (code / "docs").rename(code / "moved")
    (code / "docs").symlink_to(victim)
    check_kept(victim, workspace)
    check_kept(victim, root_of(config))  # as after a restart, which reads the configuration again


def test_link_to_outer_workspace_does_not_hide_nesting(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "projects").symlink_to(tmp_path / "code")
    (tmp_path / "code" / "docs").symlink_to(victim)
    check_kept(victim, root_of(config_of(tmp_path / "code", tmp_path / "projects" / "docs")))


def test_links_outside_other_workspaces_are_followed(tmp_path: Path) -> None:
    real = tmp_path / "real" / "docs"
    real.mkdir(parents=True)
    (tmp_path / "relative").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative" / ".." / "real")
    workspace = root_of(config_of(tmp_path / "code", tmp_path / "absolute" / "docs"))
    assert workspace == real
    use(workspace, "write", path=f"{tmp_path}/absolute/docs/a.txt", content="tea")
    assert (real / "a.txt").read_text() == "tea"


def test_links_in_circle_come_to_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert refusal(root_of(config_of(tmp_path / "code", tmp_path / "a")), "ls")


def test_link_grants_nothing_to_command(tmp_path: Path, victim: Path) -> None:
    """As if the workspace were exchanged just before the command starts."""
    if missing := find_sandboxes("", ["landlock"]).missing:
        pytest.skip("; ".join(missing.values()))
    (tmp_path / "docs").symlink_to(victim)
    done = run_command(
        Command(
            argv=("/bin/sh", "-c", "touch new"),
            cwd=str(victim),
            env={"PATH": "/usr/bin:/bin"},
            timeout_seconds=10,
            sandbox=Sandbox("landlock", (str(tmp_path / "docs"),)),
        )
    )
    assert done.status != 0
    assert [path.name for path in victim.iterdir()] == ["secret.txt"]


@pytest.mark.parametrize(
    ("tools", "noted"),
    [({"allow": ["exec"]}, "exec"), ({"alsoAllow": ["write"]}, "write"), ({"allow": ["read"]}, None)],
)
def test_nested_workspaces_are_noted_where_outer_agent_can_change_them(
    tmp_path: Path, tools: Any, noted: str | None
) -> None:
    config = config_of(tmp_path / "code", tmp_path / "code" / "docs", **tools)
    notes = [note for note in tool_warnings(config, Roster.from_config(config)) if "is inside the workspace" in note]
    assert bool(notes) == (noted is not None)
    for note in notes:
        assert note.startswith(f"agents.list[1].workspace: {tmp_path}/code/docs is inside the workspace of coder")
        assert f"change it with {noted}" in note
