"""Change modes of files for a confined command, where that is its right. Needs only the standard library.

Landlock does not control modes and owners: a command could publish files of its user that it cannot read, such as the
gateway's configuration. The seccomp filter hands such calls to the broker, a process outside (seccomp_unotify(2)). It
opens the file itself and performs the call on what it has opened and checked, so that no path or memory that changes
meanwhile matters.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress

from service.core.processes.seccomp import PRIVILEGED_BITS, Change, change_of

# linux/seccomp.h
_RECEIVE, _SEND, _IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
_NOTIFICATION, _RESPONSE, _ID = "=QIIiIQ6Q", "=QqiI", "=Q"
# linux/fcntl.h
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH = -100, 0x100, 0x1000
_UNCHANGED = 0xFFFFFFFF
_MAX_PATH_BYTES = 4096
_SELF = "/proc/self/"


class PermissionBroker:
    """Performs the calls that come to `listener`, its own from now on, on what is at the real paths `granted` or below.

    These are what the command may write to. What is new beside a hidden file, such as one that will replace it, is not.
    """

    def __init__(self, listener: int, granted: Sequence[str]) -> None:
        self._listener = listener
        self._granted = tuple(granted)
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._listener

    def serve(self) -> None:
        """Answer until the last process that can call has ended."""
        while self.answer():
            self._poll.poll()

    def answer(self) -> bool:
        """Answer one call, if there is one; return False once there is no process that can call."""
        events = sum(found for _, found in self._poll.poll(0))
        if not events & select.POLLIN:
            return not events
        notification = bytearray(struct.calcsize(_NOTIFICATION))
        with suppress(OSError):  # the caller has been killed
            fcntl.ioctl(self._listener, _RECEIVE, notification)
            call, pid, _, number, _, _, *arguments = struct.unpack(_NOTIFICATION, notification)
            try:
                self._perform(call, pid, number, arguments)
                failure = 0
            except OSError as error:
                failure = error.errno or errno.EPERM
            except ValueError:  # a path with a NUL cannot be; one that is no text can
                failure = errno.EINVAL
            fcntl.ioctl(self._listener, _SEND, struct.pack(_RESPONSE, call, 0, -failure, 0))
        return True

    def close(self) -> None:
        """Close the listener; calls that are asked about fail from now on."""
        os.close(self._listener)

    def _perform(self, call: int, pid: int, number: int, arguments: list[int]) -> None:
        change = change_of(number)
        if change is None:
            raise PermissionError(errno.EPERM, "")
        file = _open(change, pid, arguments)
        try:
            fcntl.ioctl(self._listener, _IS_VALID, struct.pack(_ID, call))  # that process was the one that called
            own_name = f"/proc/self/fd/{file}"
            if not self._may_change(os.readlink(own_name)):  # noqa: PTH115 - pathlib is slow to import
                raise PermissionError(errno.EPERM, "")
            status = os.fstat(file)
            if change.owner:
                _check_owner(status, *arguments[change.what : change.what + 2])
                return
            mode = arguments[change.what] & 0o7777
            if mode & PRIVILEGED_BITS & ~status.st_mode and not stat.S_ISDIR(status.st_mode):
                raise PermissionError(errno.EPERM, "")
            os.chmod(own_name, mode)  # noqa: PTH101 - as above
        finally:
            os.close(file)

    def _may_change(self, path: str) -> bool:
        return any(path == one or path.startswith(f"{one.rstrip('/')}/") for one in self._granted)


def _check_owner(status: os.stat_result, user: int, group: int) -> None:
    """Permit what changes nothing, as copies of a user's own files do."""
    for wanted, present in ((user, status.st_uid), (group, status.st_gid)):
        if wanted & _UNCHANGED not in (_UNCHANGED, present):
            raise PermissionError(errno.EPERM, "")


def _open(change: Change, pid: int, arguments: list[int]) -> int:
    """Open the file of a call without any access to its content; the caller closes it."""
    flags = 0 if change.flags is None else arguments[change.flags]
    number = (
        _AT_FDCWD
        if change.directory is None
        else struct.unpack("=i", struct.pack("=Q", arguments[change.directory])[:4])[0]
    )
    base = f"/proc/{pid}/cwd" if number == _AT_FDCWD else f"/proc/{pid}/fd/{number}"
    path = "" if change.path is None else _read_path(pid, arguments[change.path])
    if not path:
        if change.path is not None and not flags & _AT_EMPTY_PATH:
            raise FileNotFoundError(errno.ENOENT, "")
        return os.open(base, os.O_PATH | os.O_CLOEXEC)
    if path.startswith(_SELF):
        path = f"/proc/{pid}/{path.removeprefix(_SELF)}"
    follows = change.follows_links and not flags & _AT_SYMLINK_NOFOLLOW
    directory = os.open("/" if path.startswith("/") else base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follows else os.O_NOFOLLOW), dir_fd=directory)
    finally:
        os.close(directory)


def _read_path(pid: int, address: int) -> str:
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The part up to the end of the page, then the next one: what comes after may not be there.
        content = os.pread(memory, _MAX_PATH_BYTES - address % _MAX_PATH_BYTES, address)
        if b"\0" not in content:
            content += os.pread(memory, _MAX_PATH_BYTES - len(content), address + len(content))
    except (OSError, OverflowError):
        raise OSError(errno.EFAULT, "") from None
    finally:
        os.close(memory)
    path, end, _ = content.partition(b"\0")
    if not end:
        raise OSError(errno.ENAMETOOLONG, "")
    return os.fsdecode(path)
