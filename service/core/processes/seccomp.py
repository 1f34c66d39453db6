"""A seccomp filter: system calls that reach beyond files and processes, which Landlock does not control.

Needs only the standard library. See seccomp(2); the filter is a classic BPF program over `struct seccomp_data`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Sequence

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # linux/seccomp.h
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_X32_BIT = 0x40000000

# By machine: AUDIT_ARCH of linux/audit.h, the number of socket(2), and those of the calls that are denied: add_key,
# request_key, keyctl (other programs' keys), bpf, perf_event_open, userfaultfd, open_by_handle_at (files without a
# path), and io_uring_setup, whose operations no filter sees.
_MACHINES = {
    "x86_64": (0xC000003E, 41, (248, 249, 250, 321, 298, 323, 304, 425)),
    "aarch64": (0xC00000B7, 198, (217, 218, 219, 280, 241, 282, 265, 425)),
}

#: What `network` means: the internet, and the kernel's own answers about it.
NETWORK_FAMILIES = (socket.AF_INET, socket.AF_INET6, 16)  # 16 is AF_NETLINK, which only Linux has


def is_supported() -> bool:
    """Return whether filters for this machine are known."""
    return sys.platform == "linux" and platform.machine() in _MACHINES


def filter_program(families: Sequence[int]) -> bytes:
    """Return the program that allows sockets of these address families only; pairs of connected ones are always made.

    Sockets of the file system are not among them: other programs, such as a container daemon, listen there.
    """
    architecture, socket_number, denied = _MACHINES[platform.machine()]
    deny, allow = (_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, architecture),
        deny,
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        deny,
    ]
    for number in denied:
        program += [(_JUMP_EQUAL, 0, 1, number), deny]
    program += [(_JUMP_EQUAL, 1, 0, socket_number), allow, (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)]
    for family in families:
        program += [(_JUMP_EQUAL, 0, 1, family), allow]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in (*program, deny))


def enforce(program: bytes) -> None:
    """Filter the calls of this process for good. It must not be able to gain privileges. Raises `OSError`."""
    instructions = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, description, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
