"""The symbolic links on the way to a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MAX_LINKS = 40  # as Linux


def find_links(path: Path) -> Iterator[Path]:
    """Yield the symbolic links that lead to `path`, those in the targets of others included.

    Their directories are real paths. Ends where the path does not exist.
    """
    rest, place, found = list(reversed(path.absolute().parts[1:])), Path("/"), 0
    while rest and found <= _MAX_LINKS:
        name = rest.pop()
        entry = place.parent if name == ".." else place / name
        if name == ".." or not entry.is_symlink():
            place = entry
            continue
        found += 1
        yield entry
        target = entry.readlink()
        rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        place = Path("/") if target.is_absolute() else place


def is_inside(path: Path, directory: Path) -> bool:
    """Return whether the real `path` is in `directory`."""
    return path.is_relative_to(os.path.realpath(directory))
