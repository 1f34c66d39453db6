"""Landlock: restrict the files, TCP ports and signals of this process and all its future children, without privileges.

Needs only the standard library. See landlock(7); the constants are those of linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Collection, Iterable

from service.core.real_paths import PASS, open_real

#: The first version that controls truncation, without which a file that may not be written can be emptied: Linux 6.2.
ABI_TRUNCATION = 3
#: The first version that controls signals, without which a command can end the gateway: Linux 6.12.
ABI_SIGNALS = 6

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_ABI_NETWORK, _ABI_IOCTL = 4, 5

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ALL_FILE_RIGHTS = (1 << 15) - 1  # of ABI 3
_RIGHTS_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_BIND_TCP_AND_CONNECT_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3

#: What programs may read and execute.
READ = _EXECUTE | _READ_FILE | _READ_DIR
#: Access of programs to their own directories, without the creation of devices.
WRITE = _ALL_FILE_RIGHTS & ~(_MAKE_CHAR | _MAKE_BLOCK)
#: What programs may do with a device.
DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV

#: Devices without memory or effect. Terminals are not among them: what somebody types at one could be read.
_DEVICES = ("null", "zero", "full", "random", "urandom")


def abi_version() -> int:
    """Return the kernel's version of Landlock; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(_syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION), 0)


class Ruleset:
    """Rights to files; what no rule grants is denied. With `network` false TCP is denied, too.

    Raises `OSError` where the kernel has no Landlock.
    """

    def __init__(self, *, network: bool) -> None:
        abi = abi_version()
        self._handled = _ALL_FILE_RIGHTS | (_IOCTL_DEV if abi >= _ABI_IOCTL else 0)
        denied_network = _BIND_TCP_AND_CONNECT_TCP if abi >= _ABI_NETWORK and not network else 0
        scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= ABI_SIGNALS else 0
        attributes = struct.pack("=QQQ", self._handled, denied_network, scoped)
        size = 24 if abi >= ABI_SIGNALS else 16 if abi >= _ABI_NETWORK else 8
        self._descriptor = _checked(_syscall(_CREATE_RULESET, attributes, size, 0))

    def allow(self, path: str, rights: int) -> None:
        """Grant `rights` to what is at the real `path` and beneath it; one that cannot be opened grants nothing."""
        try:
            descriptor = open_real(path, PASS)
        except OSError:
            return
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISLNK(mode):
                return
            if not stat.S_ISDIR(mode):
                rights &= _RIGHTS_OF_FILES
            if not rights:
                return  # such as those to list a file; the kernel refuses an empty rule
            rule = struct.pack("=Qi", rights & self._handled, descriptor)
            _checked(_syscall(_ADD_RULE, self._descriptor, _RULE_PATH_BENEATH, rule, 0))
        finally:
            os.close(descriptor)

    def allow_reading_system(self, hidden: Collection[str]) -> None:
        """Grant reading everything but devices and the paths `hidden`, which are real paths.

        Rules cannot be taken back below a directory, so that a directory that holds a hidden path is not granted itself
        and cannot be listed; what else it holds is granted.
        """
        self._allow_all_but("/", {*hidden, "/dev"})
        for name in _DEVICES:
            self.allow(os.path.realpath(f"/dev/{name}"), DEVICE | READ)

    def _allow_all_but(self, directory: str, hidden: Collection[str]) -> None:
        for path in _children(directory):
            if any(one.startswith(f"{path}/") for one in hidden):
                self._allow_all_but(path, hidden)
            elif path not in hidden:
                self.allow(path, READ)

    def allow_writing(self, directories: Iterable[str], hidden: Collection[str]) -> list[str]:
        """Grant everything in each of `directories`; in one that holds a hidden path, in what it holds beside that.

        Returns the paths of what is granted, each with all beneath it.
        """
        return self._allow_in(directories, WRITE, hidden)

    def allow_reading(self, directories: Iterable[str], hidden: Collection[str]) -> None:
        """Grant reading each of `directories`, and only listing the hidden paths in them."""
        self._allow_in(directories, READ & ~_EXECUTE, hidden)

    def allow_listing(self, directory: str) -> None:
        """Grant the names of files in `directory` and beneath it."""
        self.allow(directory, _READ_DIR)

    def _allow_in(self, directories: Iterable[str], rights: int, hidden: Collection[str]) -> list[str]:
        granted: list[str] = []
        for directory in directories:
            if not any(one.startswith(f"{directory.rstrip('/')}/") for one in hidden):
                self.allow(directory, rights)
                granted.append(directory)
                continue
            self.allow(directory, _READ_DIR)
            granted += self._allow_in([path for path in _children(directory) if path not in hidden], rights, hidden)
        return granted

    def enforce(self) -> None:
        """Restrict this process for good. It must not be able to gain privileges (PR_SET_NO_NEW_PRIVS)."""
        _checked(_syscall(_RESTRICT_SELF, self._descriptor, 0))

    def close(self) -> None:
        """Close the ruleset; what it was enforced on stays restricted."""
        os.close(self._descriptor)


def _children(directory: str) -> list[str]:
    """Return what is in `directory`, symbolic links left out: they grant nothing, and might lead to a hidden path."""
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if not entry.is_symlink()]
    except OSError:
        return []


def _syscall(number: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
