"""Resolve a tool's paths inside the workspace, one name at a time.

Nothing outside can be reached, even if the tree changes concurrently: each name is opened relative to its parent's
descriptor and never through a symbolic link. A link that stays inside is followed by resolving its target.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from service.core.dataclass import record
from service.core.real_paths import close_directory, open_real
from service.tools.tool import ToolContext, ToolError
from service.tools.workspace.filenames import to_display
from service.tools.workspace.hidden_files import HiddenFiles

#: The maximum number of symbolic links in one path, the same as on Linux.
MAX_LINKS = 40
#: The maximum depth of a path. Each directory is held open while the path is resolved.
MAX_DEPTH = 100

#: The message if the path of a workspace no longer leads to it.
MOVED = (
    "The workspace cannot be used: in its path is a symbolic link that was made after the gateway had read its "
    "configuration, or that is inside another agent's workspace. The operator can configure the real path."
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# NONBLOCK: do not wait for the writer of a FIFO that has replaced a file.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@record
class WorkspaceEntry:
    """A name in an open directory of the workspace, which may or may not exist.

    `directory` is a file descriptor owned by the walk; `name` is `.` for the directory itself; `shown` is the path in
    the workspace for messages.
    """

    directory: int
    name: str
    shown: str
    hidden: HiddenFiles

    def stat(self) -> os.stat_result | None:
        """Return the status of the entry, of a link rather than its target; `None` if there is none."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def check_visible(self) -> None:
        """Raise `ToolError` if the entry is hidden, by name or identity."""
        self.hidden.check_name(self.directory, self.name, self.shown)
        if (status := self.stat()) is not None:
            self.hidden.check(status, self.shown)

    def open_directory(self) -> int:
        """Open the directory and return its descriptor; the caller closes it."""
        return open_subdirectory(self.name, self.directory, self.shown, self.hidden)

    def open_file(self) -> BinaryIO:
        """Open the regular file for reading; the caller closes it."""
        return open_regular_file(self.name, self.directory, self.shown, self.hidden)

    def replace(self, content: bytes) -> bool:
        """Write a file with `content` atomically; return whether it was created.

        A replaced file keeps its mode and, if possible, its owner; its other hard links keep the old content. Raises
        `ToolError` for anything but a regular file.
        """
        self.check_visible()
        old = self.stat()
        if old is not None:
            check_regular(old.st_mode, self.shown)
        temporary = f".{secrets.token_hex(8)}.tmp"
        fd = os.open(temporary, _NEW_FILE, 0o666, dir_fd=self.directory)
        try:
            with os.fdopen(fd, "wb") as file:
                if old is not None:
                    _copy_ownership(fd, old)
                file.write(content)
            os.replace(temporary, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=self.directory)
            raise
        return old is None


def _copy_ownership(fd: int, old: os.stat_result) -> None:
    new = os.fstat(fd)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        with suppress(PermissionError):
            os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode) & 0o777)


class Workspace:
    """The tree under the real path `root`, without the gateway's own files at `hidden`.

    Nothing is opened if a part of `root` has become a link.
    """

    def __init__(self, root: Path, hidden: Iterable[Path]) -> None:
        self._root = root
        self._hidden = HiddenFiles(hidden)

    @classmethod
    def of(cls, context: ToolContext) -> Workspace:
        """Return the workspace of the calling agent. Raises `ToolError` if it has none."""
        if context.workspace is None:
            raise ToolError("This agent has no workspace, so it has no files.")
        return cls(context.workspace, context.hidden)

    @contextmanager
    def open_entry(self, path: str, *, create_parents: bool = False) -> Iterator[WorkspaceEntry]:
        """Resolve `path`, relative to the workspace or absolute inside it; the entry is valid within the block.

        With `create_parents` missing directories are created. Raises `ToolError`, also for any `OSError` of the block.
        """
        try:
            walk = _Walk(self._root, self._hidden, create=create_parents)
            try:
                yield walk.resolve(path, create_parents=create_parents)
            finally:
                walk.close()
        except OSError as error:
            raise _to_tool_error(error, path) from None

    def open_file(self, path: str) -> BinaryIO:
        """Open the regular file at `path` for reading; the caller closes it. Raises `ToolError`."""
        with self.open_entry(path) as entry:
            return entry.open_file()


class _Walk:
    """The open directories from the root to the current position of a path."""

    def __init__(self, root: Path, hidden: HiddenFiles, *, create: bool) -> None:
        self._root = root
        self._hidden = hidden
        try:
            self._directories = [open_real(str(root), _DIRECTORY, create=create)]
        except FileNotFoundError:
            raise ToolError("The workspace is empty: its directory is created with the first file.") from None
        except NotADirectoryError:
            raise ToolError(MOVED) from None
        try:
            hidden.check(os.fstat(self._directories[0]), "The workspace")
        except ToolError:
            self.close()
            raise
        self._names: list[str] = []
        self._links = 0

    def resolve(self, path: str, *, create_parents: bool) -> WorkspaceEntry:
        steps = deque(self._steps(path))
        while steps:
            name = steps.popleft()
            if name == "..":
                self._leave(path)
                continue
            target = self._link_target(name, path)
            if target is not None:
                steps.extendleft(reversed(self._steps(target)))
            elif steps:
                self._enter(name, create=create_parents)
            else:
                return self._entry(name, "/".join([*self._names, name]))
        return self._entry(".", "/".join(self._names) or ".")

    def _entry(self, name: str, path: str) -> WorkspaceEntry:
        return WorkspaceEntry(self._directories[-1], name, to_display(path), self._hidden)

    def close(self) -> None:
        while self._directories:
            close_directory(self._directories.pop())

    def _steps(self, path: str) -> list[str]:
        if "\0" in path:
            raise ToolError("A path must not contain a NUL character.")
        if path.startswith("/"):
            path = self._inside(path)
            while len(self._directories) > 1:
                self._leave(path)
        return [name for name in path.split("/") if name not in ("", ".")]

    def _inside(self, path: str) -> str:
        root = str(self._root)
        for one in (path, os.path.realpath(path)):  # the workspace may have further names
            if one == root or one.startswith(root.rstrip("/") + "/"):
                return one[len(root) :]
        raise _escape(path)

    def _leave(self, path: str) -> None:
        # Do not open `..`: a directory that was moved meanwhile has another parent.
        if len(self._directories) == 1:
            raise _escape(path)
        close_directory(self._directories.pop())
        self._names.pop()

    def _link_target(self, name: str, path: str) -> str | None:
        try:
            target = os.readlink(name, dir_fd=self._directories[-1])
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # not a link, or missing
                return None
            raise
        self._links += 1
        if self._links > MAX_LINKS:
            raise ToolError(f'"{to_display(path)}" goes through more than {MAX_LINKS} symbolic links.')
        return target

    def _enter(self, name: str, *, create: bool) -> None:
        if len(self._directories) > MAX_DEPTH:
            raise ToolError(f"The path is more than {MAX_DEPTH} directories deep.")
        shown = to_display("/".join([*self._names, name]))
        if create:
            self._hidden.check_name(self._directories[-1], name, shown)
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._directories[-1])
        self._directories.append(open_subdirectory(name, self._directories[-1], shown, self._hidden))
        self._names.append(name)


def open_regular_file(name: str, directory: int, shown: str, hidden: HiddenFiles) -> BinaryIO:
    """Open the file `name` of the open `directory` for reading. Raises `ToolError` for non-regular and hidden files.

    Checks the type before opening, because opening a device may have effects, and again afterwards, because the file
    may have been replaced.
    """
    hidden.check_name(directory, name, shown)
    check_regular(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode, shown)
    file = os.fdopen(os.open(name, _FILE, dir_fd=directory), "rb")
    try:
        status = os.fstat(file.fileno())
        check_regular(status.st_mode, shown)
        hidden.check(status, shown)
    except BaseException:
        file.close()
        raise
    return file


def open_subdirectory(name: str, directory: int, shown: str, hidden: HiddenFiles) -> int:
    """Open the subdirectory `name` of the open `directory`, not through a link; the caller closes the descriptor.

    Raises `ToolError` if it is hidden.
    """
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        hidden.check(os.fstat(descriptor), shown)
    except BaseException:
        close_directory(descriptor)
        raise
    return descriptor


def check_regular(mode: int, shown: str) -> None:
    """Raise `ToolError` with the actual type unless `mode` is that of a regular file."""
    if not stat.S_ISREG(mode):
        raise ToolError(f'"{shown}" is {kind_of(mode)}, not a file.')


def kind_of(mode: int) -> str:
    """Return the type of a file in plain English."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _escape(path: str) -> ToolError:
    return ToolError(f'"{to_display(path)}" leads outside the workspace. Use a path inside it, such as "notes/a.txt".')


def _to_tool_error(error: OSError, path: str) -> ToolError:
    shown = to_display(path)
    if isinstance(error, FileNotFoundError):
        return ToolError(f'"{shown}" does not exist in the workspace.')
    if isinstance(error, NotADirectoryError):
        return ToolError(f'"{shown}" is not a directory, or one of its parents is not.')
    if error.errno == errno.ELOOP:
        return ToolError(f'"{shown}" was changed while it was being opened. Try again.')
    return ToolError(f'"{shown}" cannot be used: {error.strerror}.')
