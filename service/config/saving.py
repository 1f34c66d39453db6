"""Write the configuration file atomically, readable by its owner only, one writer at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.config.source import ConfigError, Locations, read_config_text

#: A new file before the first edit.
_EMPTY = "{\n}\n"


def create_file(locations: Locations, text: str) -> bool:
    """Create the file and missing directories unless the file exists; return whether it was created.

    The file has mode 0600, new directories 0700. Raises `ConfigError` if it cannot be written.
    """
    path = locations.config_path
    try:
        if path.exists():
            return False
        _create_private_directory(locations.state_dir)
        _create_private_directory(path.parent)
        with _written(path, text) as temporary:
            return _link(path, temporary)
    except OSError as error:
        raise _not_writable(path, error) from None


def edit_file(locations: Locations, edit: Callable[[str], str], check: Callable[[str, str], None]) -> None:
    """Replace the file's text by `edit` of it in one step; a missing file counts as an empty object.

    `check` is called with the text before and after, and may raise to leave the file unchanged. Mode, owner and
    symbolic links are preserved. Raises `ConfigError` for what cannot be read or written.
    """
    path = Path(os.path.realpath(locations.config_path))
    if not path.exists():
        text = edit(_EMPTY)
        check(_EMPTY, text)
        if create_file(locations, text):
            return
    try:
        with _locked(path.parent):
            before = read_config_text(locations)
            after = edit(before)
            check(before, after)
            with _written(path, after) as temporary:
                _adopt(path.stat(), temporary)
                temporary.replace(path)
    except OSError as error:
        raise _not_writable(path, error) from None


def _link(path: Path, temporary: Path) -> bool:
    try:
        # Unlike a rename, a link never replaces what another process has just written.
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    return True


@contextmanager
def _written(path: Path, text: str) -> Iterator[Path]:
    """A file beside `path` that holds `text`, on the disk; gone afterwards unless it was moved."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _adopt(status: os.stat_result, file: Path) -> None:
    file.chmod(status.st_mode & 0o777)
    own = file.stat()
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        with suppress(PermissionError):  # without the right to give files away the new one keeps its owner
            os.chown(file, status.st_uid, status.st_gid)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Be the only writer in `directory`; afterwards what was renamed there is on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_private_directory(directory: Path) -> None:
    for missing in reversed([directory, *directory.parents]):
        if not missing.is_dir():
            missing.mkdir(mode=0o700, exist_ok=True)


def _not_writable(path: Path, error: OSError) -> ConfigError:
    return ConfigError([f"it cannot be written: {error.strerror}"], str(path))
