"""The files of a workspace: a tool's path is walked from the workspace's directory, one name at a time.

Nothing outside can be reached, however the tree is changed meanwhile: each name is opened in the directory that was
reached before it and never through a symbolic link. A link that stays inside is followed by walking its target.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from service.core.dataclass import record
from service.tools.tool import ToolContext, ToolError
from service.tools.workspace.filenames import to_display
from service.tools.workspace.hidden import HiddenFiles

#: The most symbolic links one path may go through; what Linux allows.
MAX_LINKS = 40
#: The most directories a path may go down. Each is held open while the path is walked.
MAX_DEPTH = 100

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# NONBLOCK: a FIFO that takes the place of a file must not make us wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@record
class WorkspaceEntry:
    """A name in an open directory of the workspace, which may or may not exist.

    `directory` is a file descriptor that belongs to the walk; `name` is `.` for the directory itself; `shown` is the
    path in the workspace, for people.
    """

    directory: int
    name: str
    shown: str
    hidden: HiddenFiles

    def stat(self) -> os.stat_result | None:
        """What stands there, a link itself rather than its target; `None` if nothing does."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def check_visible(self) -> None:
        """Raise `ToolError` if the place or what is there is hidden."""
        self.hidden.check_name(self.directory, self.name, self.shown)
        if (status := self.stat()) is not None:
            self.hidden.check(status, self.shown)

    def open_directory(self) -> int:
        """A descriptor of the directory that stands there; the caller closes it."""
        return open_subdirectory(self.name, self.directory, self.shown, self.hidden)

    def open_file(self) -> BinaryIO:
        """The regular file that stands there, for reading; the caller closes it."""
        return open_regular_file(self.name, self.directory, self.shown, self.hidden)

    def replace(self, content: bytes) -> bool:
        """Put a file with `content` there, whole or not at all; return whether it is a new one.

        A file that stood there keeps its mode and, if possible, its owner; other names (hard links) of it keep the old
        content. Raises `ToolError` for anything but a regular file.
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
                    _take_after(fd, old)
                file.write(content)
            os.replace(temporary, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=self.directory)
            raise
        return old is None


def _take_after(fd: int, old: os.stat_result) -> None:
    made = os.fstat(fd)
    if (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
        with suppress(PermissionError):
            os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode) & 0o777)


class Workspace:
    """The tree under `root`, an absolute path that is trusted, without the gateway's own files at `hidden`."""

    def __init__(self, root: Path, hidden: Iterable[Path | str]) -> None:
        self._root = root
        self._hidden = HiddenFiles(hidden)

    @classmethod
    def of(cls, context: ToolContext) -> Workspace:
        """The workspace of the agent that asks. Raises `ToolError` if it has none."""
        if context.workspace is None:
            raise ToolError("This agent has no workspace, so there are no files to work on.")
        return cls(context.workspace, context.hidden)

    @contextmanager
    def open_place(self, path: str, *, create_parents: bool = False) -> Iterator[WorkspaceEntry]:
        """The place `path` names, relative to the workspace or absolute and inside it, as long as the block runs.

        With `create_parents` directories that are missing on the way are made. Raises `ToolError`, also for any
        `OSError` of the block.
        """
        with _told_as_tool_error(path):
            if create_parents:
                self._root.mkdir(parents=True, exist_ok=True)
            with closing(_Walk(self._root, self._hidden)) as walk:
                yield walk.go(path, create_parents=create_parents)

    def open_file(self, path: str) -> BinaryIO:
        """The regular file at `path`, for reading; the caller closes it. Raises `ToolError`."""
        with self.open_place(path) as place:
            return place.open_file()


class _Walk:
    """The way from the root to where a path leads: every directory on it is held open."""

    def __init__(self, root: Path, hidden: HiddenFiles) -> None:
        self._root = root
        self._hidden = hidden
        try:
            self._directories = [os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)]
        except FileNotFoundError:
            raise ToolError("The workspace is empty: its directory comes with the first file written.") from None
        try:
            hidden.check(os.fstat(self._directories[0]), "The workspace")
        except ToolError:
            self.close()
            raise
        self._names: list[str] = []
        self._links = 0

    def go(self, path: str, *, create_parents: bool) -> WorkspaceEntry:
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
            os.close(self._directories.pop())

    def _steps(self, path: str) -> list[str]:
        if "\0" in path:
            raise ToolError("A path must not hold a NUL character.")
        if path.startswith("/"):
            path = self._inside(path)
            while len(self._directories) > 1:
                self._leave(path)
        return [name for name in path.split("/") if name not in ("", ".")]

    def _inside(self, path: str) -> str:
        for root in (str(self._root), os.path.realpath(self._root)):
            if path == root or path.startswith(root.rstrip("/") + "/"):
                return path[len(root) :]
        raise _escape(path)

    def _leave(self, path: str) -> None:
        # Never `..` itself: a directory that was moved away meanwhile has another parent.
        if len(self._directories) == 1:
            raise _escape(path)
        os.close(self._directories.pop())
        self._names.pop()

    def _link_target(self, name: str, path: str) -> str | None:
        try:
            target = os.readlink(name, dir_fd=self._directories[-1])
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # no link, or nothing at all
                return None
            raise
        self._links += 1
        if self._links > MAX_LINKS:
            raise ToolError(f'"{to_display(path)}" goes through more than {MAX_LINKS} symbolic links.')
        return target

    def _enter(self, name: str, *, create: bool) -> None:
        if len(self._directories) > MAX_DEPTH:
            raise ToolError(f"The path goes down more than {MAX_DEPTH} directories.")
        shown = to_display("/".join([*self._names, name]))
        if create:
            self._hidden.check_name(self._directories[-1], name, shown)
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._directories[-1])
        self._directories.append(open_subdirectory(name, self._directories[-1], shown, self._hidden))
        self._names.append(name)


def open_regular_file(name: str, directory: int, shown: str, hidden: HiddenFiles) -> BinaryIO:
    """The file `name` of the open `directory`, for reading. Raises `ToolError` for a link, a device, a FIFO, ...

    Raises it, too, for a file that is hidden.

    Looks before it opens, since opening a device may do something, and again after, since that may be another one.
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
    """A descriptor of the directory `name` of the open `directory`, which is not a link; the caller closes it.

    Raises `ToolError` for one that is hidden.
    """
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        hidden.check(os.fstat(descriptor), shown)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_regular(mode: int, shown: str) -> None:
    """Return if `mode` is a regular file's, else raise `ToolError` saying what it is."""
    if not stat.S_ISREG(mode):
        raise ToolError(f'"{shown}" is {kind_of(mode)}, not a file.')


def kind_of(mode: int) -> str:
    """What stands at a path, in words."""
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


@contextmanager
def _told_as_tool_error(path: str) -> Iterator[None]:
    shown = to_display(path)
    try:
        yield
    except FileNotFoundError:
        raise ToolError(f'There is no "{shown}" in the workspace.') from None
    except NotADirectoryError:
        raise ToolError(f'"{shown}" is not a directory, or goes through something that is none.') from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ToolError(f'"{shown}" was changed while it was being opened. Try again.') from None
        raise ToolError(f'"{shown}" cannot be used: {error.strerror}.') from None
