"""OpenClaw's `exec-approvals.json`: its restrictions of commands are refused, because they are not enforced here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

FILE_NAME = "exec-approvals.json"
_MAX_BYTES = 4 * 1024 * 1024
_PERMISSIVE = {"security": (None, "full"), "ask": (None, "off")}


def find_restrictions(directories: Iterable[Path]) -> Iterator[str]:
    """Yield a problem for each restriction in the files of this name in `directories`."""
    for directory in directories:
        path = directory / FILE_NAME
        if path.is_file():
            yield from _restrictions_in(path)


def _restrictions_in(path: Path) -> Iterator[str]:
    remedy = "this gateway does not read the file: say the same in tools.exec and tools.deny, and move the file away"
    try:
        content = orjson.loads(path.read_bytes()) if path.stat().st_size <= _MAX_BYTES else None
    except (OSError, orjson.JSONDecodeError):
        content = None
    if not isinstance(content, dict):
        yield f"{path}: it may restrict commands and cannot be read; {remedy}"
        return
    for place, settings in _sections(content):
        for key, permissive in _PERMISSIVE.items():
            if settings.get(key) not in permissive:
                yield f"{path}: {place}.{key} restricts commands; {remedy}"


def _sections(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    agents = content.get("agents")
    named = {f"agents.{name}": section for name, section in agents.items()} if isinstance(agents, dict) else {}
    for place, section in {"defaults": content.get("defaults"), **named}.items():
        if isinstance(section, dict):
            yield place, section
