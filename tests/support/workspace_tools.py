"""Workspace tools in a temporary directory, beside one that must stay out of reach."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from service.core.concurrency import deadline
from service.tools.tool import Tool, ToolContext, ToolError
from service.tools.workspace.files import EditTool, ListTool, ReadTool, WriteTool

GENEROUS_SECONDS = 30
SECRET = "the secret outside"
FILE_TOOLS: dict[str, Tool] = {tool.name: tool for tool in (ReadTool(), WriteTool(), EditTool(), ListTool())}


def make_workspace(directory: Path) -> Path:
    """A new workspace in `directory`; the directory `outside` beside it holds a secret."""
    outside = directory / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    root = directory / "workspace"
    root.mkdir()
    return root


def with_notes(directory: Path) -> Path:
    """The workspace with its one file, and without what earlier tests left in it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "notes.txt").write_text("tea\nmilk\n")
    return directory


def use(workspace: Path, tool: str | Tool, **arguments: Any) -> str:
    """The result of a tool, or of the file tool of that name."""
    used = FILE_TOOLS[tool] if isinstance(tool, str) else tool
    with deadline(GENEROUS_SECONDS):
        return used.run(arguments, ToolContext("main", workspace, "agent:main:x", "run-1"))


def refusal(workspace: Path, tool: str | Tool, **arguments: Any) -> str:
    """Return the error text of a tool that fails."""
    with pytest.raises(ToolError) as caught:
        use(workspace, tool, **arguments)
    return str(caught.value)
