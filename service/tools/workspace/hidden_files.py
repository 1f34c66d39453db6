"""Hide the gateway's own files from tools, under any name.

They are identified by device and inode, so that links, bind mounts and `..` give no access, and by directory and name,
so that a missing one cannot be created. Needs only the standard library.
"""

# Strings: every tool call looks at these paths, and Path objects cost as much as the system calls.
# ruff: noqa: PTH116, PTH118

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from service.tools.tool import ToolError

_Identity = tuple[int, int]


class HiddenFiles:
    """The files and directory trees at `paths`, and /proc.

    They are looked up once, their hard links on first use: create one instance per tool call.
    """

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        # The system follows `..` only behind a directory that exists.
        self._given = tuple([_with_real_parent(path) if "/.." in path else path for path in map(str, paths)])
        self._identities: set[_Identity] = set()
        self._names: dict[_Identity, list[str]] = {}
        for path in self._given:
            self._hide(path)
        self._process_device = _process_device()
        self._linked: frozenset[_Identity] | None = None

    def _hide(self, path: str) -> None:
        self._hide_name(path)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                self._hide_name(os.path.realpath(path))
                status = os.stat(path)
        except OSError:  # nothing is there
            return
        self._identities.add((status.st_dev, status.st_ino))

    def _hide_name(self, path: str) -> None:
        directory, name = os.path.split(path)
        if (place := _identity_of(directory or os.curdir)) is not None:
            self._names.setdefault(place, []).append(name)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The real paths."""
        return tuple(sorted({os.path.realpath(path) for path in self._given}))

    @cached_property
    def _places(self) -> frozenset[tuple[str, str]]:
        """The directories and names of the paths, a link's own included."""
        return frozenset(map(os.path.split, (*self.paths, *map(_with_real_parent, self._given))))

    def hides(self, status: os.stat_result) -> bool:
        """Return whether the file or directory with this status is hidden."""
        if (status.st_dev, status.st_ino) in self._identities or status.st_dev == self._process_device:
            return True
        # A file with several hard links may also be in a hidden directory.
        has_links = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
        return has_links and (status.st_dev, status.st_ino) in self._linked_files()

    def hides_name(self, directory: int, name: str) -> bool:
        """Return whether `name` in the open `directory` is hidden, even if it does not exist.

        This includes copies next to a hidden file, such as `openclaw.json.bak`, `openclaw.json~` and temporary files
        that replace it.
        """
        if not self._names:
            return False
        status = os.fstat(directory)
        names = self._names.get((status.st_dev, status.st_ino), ())
        return any(name == own or _is_copy(name, own) for own in names)

    def check(self, status: os.stat_result, shown: str) -> None:
        """Raise `ToolError` if the file or directory with this status is hidden."""
        if self.hides(status):
            raise hidden_error(shown)

    def check_name(self, directory: int, name: str, shown: str) -> None:
        """Raise `ToolError` if `name` in the open `directory` is hidden."""
        if self.hides_name(directory, name):
            raise hidden_error(shown)

    def inside(self, directory: Path) -> tuple[str, ...]:
        """Return the hidden paths in `directory`, itself included."""
        root = os.path.realpath(directory)
        return tuple(path for path in self.paths if path == root or path.startswith(f"{root.rstrip('/')}/"))

    def paths_with_copies(self, workspace: str) -> tuple[str, ...]:
        """Return the paths and the copies next to them, except those that hold the `workspace`: a real path.

        Links are left out: they have no content of their own.
        """
        copies = {
            os.path.join(directory, entry.name)
            for directory, own in self._places
            for entry in _entries_of(directory)
            if _is_copy(entry.name, own) and not entry.is_symlink()
        }
        return (*self.paths, *sorted(path for path in copies if not f"{workspace}/".startswith(f"{path}/")))

    def link_problem(self) -> str | None:
        """Describe a hidden file with further hard links: a sandbox, which hides paths, would show it under those.

        Looks at the files among the paths and directly in the directories: configuration and database. Deeper files,
        such as those of workspaces, may have links.
        """
        for path in self.paths:
            for file in (path, *_files_in(path)):
                with suppress(OSError):
                    status = os.lstat(file)
                    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                        return (
                            f"{file} has another hard link, through which commands could read it. Remove the link: "
                            f"`find / -xdev -samefile {shlex.quote(file)}` finds it"
                        )
        return None

    def _linked_files(self) -> frozenset[_Identity]:
        if self._linked is None:
            self._linked = frozenset(_linked_files_below(self.paths))
        return self._linked


def hidden_error(shown: str) -> ToolError:
    """Return the error for a path that is hidden."""
    return ToolError(f'"{shown}" belongs to the gateway; tools have no access to it.')


def _with_real_parent(path: str) -> str:
    """Return `path` without links, except that its last part may be one."""
    directory, name = os.path.split(path)
    return os.path.realpath(path) if name == ".." else os.path.join(os.path.realpath(directory), name)


def _identity_of(path: str) -> _Identity | None:
    """Return the identity of what is at `path`, behind links; `None` if nothing is."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_copy(name: str, own: str) -> bool:
    """Return whether an editor, a backup or a replacement of the file `own` may have this name."""
    return name.startswith((f"{own}.", f"{own}~", f".{own}.", f".{own}~", f"#{own}", f".#{own}"))


def _files_in(path: str) -> list[str]:
    return sorted(entry.path for entry in _entries_of(path) if entry.is_file(follow_symlinks=False))


def _entries_of(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:  # no directory
        return []


def _process_device() -> int | None:
    """Return the device of /proc, where the gateway's environment can be read; `None` if it is not a mount."""
    try:
        device = os.stat("/proc").st_dev
        return device if device != os.stat("/").st_dev else None
    except OSError:
        return None


def _linked_files_below(paths: Iterable[str]) -> Iterator[_Identity]:
    """Yield the files below `paths` that have several hard links."""
    pending = list(paths)
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
                elif status.st_nlink > 1:
                    yield status.st_dev, status.st_ino
