"""Open a directory by its real path, and never through a symbolic link. Needs only the standard library."""

from __future__ import annotations

import os
import posix
from contextlib import suppress

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
#: For what is only passed through, and may not be readable.
PASS: int = getattr(os, "O_PATH", os.O_RDONLY)
#: Closes the descriptor of a directory at once. gevent's `os.close` waits for readers of it, which a directory has not.
close_directory = posix.close


def open_real(path: str, flags: int, *, create: bool = False) -> int:
    """Open the absolute `path`, none of whose parts may be a link; the caller closes the descriptor.

    With `create` missing parts are created as directories. Raises `OSError`, for a link in a directory's place
    `NotADirectoryError`.
    """
    names = [name for name in path.split("/") if name]
    descriptor = os.open("/", (PASS if names else flags) | os.O_DIRECTORY | _FLAGS)
    for number, name in enumerate(names, 1):
        try:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=descriptor)
            is_last = number == len(names)
            inner = os.open(name, (flags if is_last else PASS | os.O_DIRECTORY) | _FLAGS, dir_fd=descriptor)
        finally:
            close_directory(descriptor)
        descriptor = inner
    return descriptor
