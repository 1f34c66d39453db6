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
from typing import NamedTuple

_Program = list[tuple[int, int, int, int]]

# linux/bpf_common.h
_LOAD, _AND, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_IF_ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _ASK = 0x7FFF0000, 0x00050000, 0x7FC00000  # linux/seccomp.h
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT, _ARGUMENT_BYTES = 0, 4, 16, 8
_SET_MODE_FILTER, _NEW_LISTENER, _WAIT_KILLABLE = 1, 1 << 3, 1 << 5
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_X32_BIT = 0x40000000

_KIND_BITS = 0xF  # of the type of a socket; the others are flags
#: Pairs of these have one peer for good. Those of datagrams send to any socket of the file system.
_PAIRED_KINDS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)

#: The bits of a mode that give a program its owner's or group's rights.
PRIVILEGED_BITS = 0o6000
_CREATES = os.O_CREAT | 0o20000000  # with that of O_TMPFILE


class Change(NamedTuple):
    """A system call that changes the mode of a file, or its `owner`: the places of its arguments, from 0.

    `directory` is the place of a descriptor, `path` that of a path (without one the file is the descriptor's), `what`
    that of the mode, or of the user and then the group.
    """

    directory: int | None
    path: int | None
    what: int
    flags: int | None = None
    owner: bool = False
    follows_links: bool = True


class _Machine(NamedTuple):
    """Numbers of system calls: `architecture` is AUDIT_ARCH of linux/audit.h."""

    architecture: int
    seccomp: int
    socket: int
    pair: int
    denied: tuple[int, ...]
    missing: tuple[int, ...]
    attributes: tuple[int, ...]
    creating: dict[int, tuple[int | None, int]]
    changes: dict[int, Change]
    others: dict[int, tuple[int, ...]]


_FCHMOD, _FCHMODAT, _FCHMODAT2 = Change(0, None, 1), Change(0, 1, 2), Change(0, 1, 2, flags=3)
_FCHOWN, _FCHOWNAT = Change(0, None, 1, owner=True), Change(0, 1, 2, flags=4, owner=True)

# `denied`: add_key, request_key, keyctl (other programs' keys), bpf, perf_event_open, userfaultfd, open_by_handle_at
# (files without a path), and io_uring_setup, whose operations no filter sees.
# `missing`: memory that is no process's own, so that no limit counts it, or that outlives the command: memfd_create,
# memfd_secret, those of System V's shared memory, semaphores and messages, mq_open, mq_unlink; and openat2, whose mode
# a filter does not see.
# `attributes`: setxattr and removexattr (access lists), each for a path, a link and a descriptor, and, like
# file_setattr, relative to a directory.
# `creating`: the places of the flags, if any, and of the mode in open, creat, openat, mknod and mknodat.
# `changes`: chmod, fchmod, chown, fchown, lchown, fchownat, fchmodat, fchmodat2.
# `others`: prlimit64, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr, setpriority, ioprio_set,
# with the first arguments that mean the calling thread.
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        317,
        41,
        53,
        (248, 249, 250, 321, 298, 323, 304, 425),
        (319, 447, 29, 30, 31, 67, 64, 65, 66, 220, 68, 69, 70, 71, 240, 241, 437),
        (188, 189, 190, 197, 198, 199, 463, 466, 469),
        {2: (1, 2), 85: (None, 1), 257: (2, 3), 133: (None, 1), 259: (None, 2)},
        {
            90: Change(None, 0, 1),
            91: _FCHMOD,
            92: Change(None, 0, 1, owner=True),
            93: _FCHOWN,
            94: Change(None, 0, 1, owner=True, follows_links=False),
            260: _FCHOWNAT,
            268: _FCHMODAT,
            452: _FCHMODAT2,
        },
        {302: (0,), 142: (0,), 144: (0,), 203: (0,), 314: (0,), 141: (0, 0), 251: (1, 0)},
    ),
    "aarch64": _Machine(
        0xC00000B7,
        277,
        198,
        199,
        (217, 218, 219, 280, 241, 282, 265, 425),
        (279, 447, 194, 195, 196, 197, 190, 191, 192, 193, 186, 187, 188, 189, 180, 181, 437),
        (5, 6, 7, 14, 15, 16, 463, 466, 469),
        {56: (2, 3), 33: (None, 2)},
        {52: _FCHMOD, 53: _FCHMODAT, 54: _FCHOWNAT, 55: _FCHOWN, 452: _FCHMODAT2},
        {261: (0,), 118: (0,), 119: (0,), 122: (0,), 274: (0,), 140: (0, 0), 30: (1, 0)},
    ),
}

#: What `network` means: the internet, and the kernel's own answers about it.
NETWORK_FAMILIES = (socket.AF_INET, socket.AF_INET6, 16)  # 16 is AF_NETLINK, which only Linux has


def is_supported() -> bool:
    """Return whether filters for this machine are known."""
    return sys.platform == "linux" and platform.machine() in _MACHINES


def change_of(number: int) -> Change | None:
    """Return what the system call of this number changes, `None` if it is none of those that are asked about."""
    return _MACHINES[platform.machine()].changes.get(number)


def filter_program(families: Sequence[int], *, ask_about_changes: bool) -> bytes:
    """Return the program that allows sockets of these address families only; pairs of connected ones are always made.

    Sockets of the file system are not among them: other programs, such as a container daemon, listen there. No file
    gets a privileged mode. With `ask_about_changes` the listener of `enforce` performs the calls that change modes and
    owners (see `change_of`; without a listener they fail), attributes cannot be changed, and the limits, priorities and
    processors of other processes and threads cannot be set: a limit on its time ends a process.
    """
    machine = _MACHINES[platform.machine()]
    program: _Program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, machine.architecture),
        _fail(errno.EPERM),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        _fail(errno.EPERM),
    ]
    answers = [
        *((number, _fail(errno.EPERM)) for number in machine.denied),
        *((number, _fail(errno.ENOSYS)) for number in machine.missing),
    ]
    if ask_about_changes:
        answers += [(number, _fail(errno.EOPNOTSUPP)) for number in machine.attributes]
        answers += [(number, (_RETURN, 0, 0, _ASK)) for number in machine.changes]
    for number, answer in answers:
        program += [(_JUMP_EQUAL, 0, 1, number), answer]
    modes = dict(machine.creating)
    if not ask_about_changes:
        modes |= {number: (None, change.what) for number, change in machine.changes.items() if not change.owner}
    for number, (flags, mode) in modes.items():
        program += _check_mode(number, flags, mode)
    if ask_about_changes:
        for number, own in machine.others.items():
            program += _check_arguments(number, own)
    program += _check_pair(machine.pair)
    program += [(_JUMP_EQUAL, 1, 0, machine.socket), (_RETURN, 0, 0, _ALLOW), _load(0)]
    for family in families:
        program += [(_JUMP_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in (*program, _fail(errno.EPERM)))


def _check_mode(number: int, flags: int | None, mode: int) -> _Program:
    """Refuse privileged bits in the mode, which without one of the `flags` that create a file means nothing."""
    allow = (_RETURN, 0, 0, _ALLOW)
    creates = [] if flags is None else [_load(flags), (_JUMP_IF_ANY_BIT, 1, 0, _CREATES), allow]
    check = [*creates, _load(mode), (_JUMP_IF_ANY_BIT, 0, 1, PRIVILEGED_BITS), _fail(errno.EPERM), allow]
    return [(_JUMP_EQUAL, 0, len(check), number), *check]


def _check_arguments(number: int, allowed: Sequence[int]) -> _Program:
    """Refuse the call unless its first arguments are these."""
    refuse, allow = _fail(errno.EPERM), (_RETURN, 0, 0, _ALLOW)
    check: _Program = []
    for place, value in enumerate(allowed):
        check += [_load(place), (_JUMP_EQUAL, 1, 0, value), refuse]
    return [(_JUMP_EQUAL, 0, len(check) + 1, number), *check, allow]


def _check_pair(number: int) -> _Program:
    """Refuse pairs of sockets that can have another peer."""
    refuse, allow = _fail(errno.EPERM), (_RETURN, 0, 0, _ALLOW)
    kinds = [step for kind in _PAIRED_KINDS for step in ((_JUMP_EQUAL, 0, 1, kind), allow)]
    check = [_load(0), (_JUMP_EQUAL, 1, 0, socket.AF_UNIX), refuse, _load(1), (_AND, 0, 0, _KIND_BITS), *kinds, refuse]
    return [(_JUMP_EQUAL, 0, len(check), number), *check]


def _load(argument: int) -> tuple[int, int, int, int]:
    return _LOAD, 0, 0, _FIRST_ARGUMENT_AT + _ARGUMENT_BYTES * argument


def _fail(number: int) -> tuple[int, int, int, int]:
    return _RETURN, 0, 0, _ERRNO | number


def enforce(program: bytes) -> int | None:
    """Filter the calls of this process for good, and return the descriptor of the listener that they are asked at.

    It is `None` if a program outside, such as a container manager, listens to this process already. The process must
    not be able to gain privileges. Raises `OSError`.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_MACHINES[platform.machine()].seccomp)
    listener = libc.syscall(number, _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE, description)
    if listener >= 0:
        return int(listener)
    if ctypes.get_errno() != errno.EBUSY or libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, description, 0, 0):
        failure = ctypes.get_errno()
        raise OSError(failure, f"seccomp: {os.strerror(failure)}")
    return None
