"""Build the system prompt: the agent's instructions, its workspace's files, the request's own instructions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from service.config.roster import Agent
from service.tools.tool import ToolError
from service.tools.workspace.paths import Workspace

#: Workspace files that every run reads, in this order, with OpenClaw's names.
WORKSPACE_FILES = ("AGENTS.md", "SOUL.md", "IDENTITY.md", "USER.md", "TOOLS.md")
#: Limit of characters of each file; a note marks the cut.
MAX_FILE_CHARACTERS = 20_000

_MAX_CHARACTER_BYTES = 4  # of UTF-8


def to_system_text(agent: Agent, hidden: Sequence[Path], *, channel: str | None, request_text: str) -> str:
    """Return the system text of a run, empty if no part has text.

    The agent's instructions come first, then its workspace's files, the channel the message came through, and the
    request's own system and developer texts. Files at `hidden` are not read.
    """
    parts = [agent.instructions]
    if agent.workspace_root is not None:
        parts += _workspace_sections(agent.workspace_root, hidden)
    if channel:
        parts.append(f"The message comes through the channel {channel}.")
    parts.append(request_text)
    return "\n\n".join(filter(None, map(str.strip, parts)))


def _workspace_sections(root: Path, hidden: Sequence[Path]) -> list[str]:
    directory = str(root)
    names = [name for name in WORKSPACE_FILES if os.path.lexists(f"{directory}/{name}")]
    if not names:  # as in most workspaces, and to open one has its cost
        return []
    workspace = Workspace(root, hidden)
    return [_file_section(workspace, name) for name in names]


def _file_section(workspace: Workspace, name: str) -> str:
    try:
        # As the tools read it: no link leads outside, and nothing but a regular file is opened.
        with workspace.open_file(name) as file:
            data = file.read((MAX_FILE_CHARACTERS + 1) * _MAX_CHARACTER_BYTES)
    except (ToolError, OSError):
        return ""
    text = data.decode(errors="replace").removeprefix("\ufeff")
    if not text.strip():
        return ""
    if len(text) > MAX_FILE_CHARACTERS:
        text = f"{text[:MAX_FILE_CHARACTERS]}\n[{name} is longer; the rest is left out]"
    return f"# {name}\n\n{text}"
