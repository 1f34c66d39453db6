"""Fix which directories the workspaces of agents are.

The links in a configured path are resolved once, when the configuration is read. A link inside the workspace of another
agent is not resolved at all: that agent can have made it, to move this workspace onto other files.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection
from pathlib import Path

_MAX_LINKS = 40  # as on Linux


def fix_workspaces(paths: Collection[Path]) -> dict[Path, Path]:
    """Return the directory of each of the absolute `paths`. Parts that do not exist stay as they are."""
    roots = {os.path.realpath(path) for path in paths}
    return {path: Path(_resolve(str(path), roots)) for path in paths}


def fix_directory(path: Path, workspaces: Collection[Path]) -> Path:
    """Return the directory of the absolute `path`; links inside the `workspaces`, real paths, stay as they are."""
    return Path(_resolve(str(path), {str(one) for one in workspaces}))


def _resolve(path: str, roots: Collection[str]) -> str:
    steps = deque(path.split("/"))
    current, links = "/", 0
    while steps:
        name = steps.popleft()
        if name in ("", "."):
            continue
        if name == "..":
            current = os.path.dirname(current)  # noqa: PTH120 - a string, as in realpath
            continue
        following = f"{current.rstrip('/')}/{name}"
        target = None if is_inside(current, roots) else _target_of(following)
        if target is None or links == _MAX_LINKS:
            current = following
        else:
            links += 1
            steps.extendleft(reversed(target.split("/")))
            current = "/" if target.startswith("/") else current
    return current


def is_inside(path: str, directories: Collection[str]) -> bool:
    """Return whether `path` is one of the `directories` or below one; all are real paths."""
    return any(path == one or path.startswith(f"{one.rstrip('/')}/") for one in directories)


def _target_of(path: str) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115 - a string, as in realpath
    except OSError:
        return None
