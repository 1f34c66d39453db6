"""A sandbox for commands: bubblewrap where it is installed, else Landlock with seccomp.

A sandboxed command writes to its directories, to a temporary directory of its own and to nothing else; it reads the
system except the hidden paths and devices; it reaches no process outside, no socket of the file system and, without
`network`, no host. Needs only the standard library: `supervisor.py` applies it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, NamedTuple

from service.core.processes import landlock, seccomp
from service.core.processes.permission_broker import PermissionBroker

Kind = Literal["landlock", "bwrap"]
Env = Mapping[str, str]

#: The search path for bubblewrap: directories that only an administrator can write to.
PROGRAM_DIRECTORIES = "/usr/bin:/usr/local/bin:/bin:/run/current-system/sw/bin"

#: Limits of a command unless others are given.
PROCESSES, MEMORY_BYTES, FILE_BYTES, CPU_SECONDS = 512, 4 * 1024**3, 4 * 1024**3, 3600

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38  # linux/prctl.h
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_MAX_CAPABILITY = 63
# What root needs to work in directories of others.
_KEPT_CAPABILITY, _KEPT_CAPABILITY_NAME = 1, "CAP_DAC_OVERRIDE"
_KEPT_CAPABILITIES = 1 << _KEPT_CAPABILITY
_NICENESS = 10
_OOM_SCORE = "1000"  # the first to go
_PROBE_SECONDS = 5.0
_NO_VARIABLES: Env = {}


class ResourceLimits(NamedTuple):
    """Resource limits of one command; processes and memory include its descendants."""

    processes: int = PROCESSES
    memory_bytes: int = MEMORY_BYTES
    file_bytes: int = FILE_BYTES
    cpu_seconds: int = CPU_SECONDS

    def enforce(self, running: int) -> None:
        """Limit this process and its children; the user has `running` processes already."""
        for what, limit in (
            (resource.RLIMIT_CPU, self.cpu_seconds),
            (resource.RLIMIT_FSIZE, self.file_bytes),
            (resource.RLIMIT_DATA, self.memory_bytes),
            (resource.RLIMIT_NPROC, running + self.processes),
            (resource.RLIMIT_CORE, 0),
        ):
            _, most = resource.getrlimit(what)
            limited = limit if most == resource.RLIM_INFINITY else min(limit, most)
            resource.setrlimit(what, (limited, limited))


class Sandbox(NamedTuple):
    """Restrictions of a command: writable paths, hidden paths (each a real path) and network access.

    `program` is bubblewrap's path with `kind` "bwrap".
    """

    kind: Kind
    writable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    network: bool = False
    program: str = ""

    def argv(self, argv: Sequence[str], cwd: str, filter_descriptor: int, options_descriptor: int) -> list[str]:
        """Return the command line that runs `argv` in bubblewrap, which reads filter and further options from these."""
        options = ["--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        options += [] if self.network else ["--unshare-net"]
        options += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108 - private
        rebuilt = self._directories_of_files()
        for path in sorted({*self.writable, *self.hidden, *rebuilt}, key=lambda path: path.count("/")):
            if path in rebuilt:
                options += self._rebuild(path)
            elif path in self.writable:
                options += ["--bind", path, path]
            elif os.path.isdir(path):  # noqa: PTH112 - pathlib is slow to import
                options += ["--tmpfs", path]
            elif os.path.exists(path):  # noqa: PTH110 - as above
                options += ["--ro-bind", "/dev/null", path]
        options += [word for path in rebuilt for word in ("--remount-ro", path)]
        if os.geteuid() == 0:
            options += ["--cap-drop", "ALL", "--cap-add", _KEPT_CAPABILITY_NAME]  # root keeps them all otherwise
        options += ["--seccomp", str(filter_descriptor), "--args", str(options_descriptor)]
        return [self.program, *options, "--chdir", cwd, "--", *argv]

    def _directories_of_files(self) -> tuple[str, ...]:
        """Return the directories of hidden files.

        A mount over a file is gone once the file is replaced outside, and a missing file has none. Therefore these
        directories are rebuilt from what else they hold: what is new in them does not show.
        """
        directories = [path for path in self.hidden if os.path.isdir(path)]  # noqa: PTH112 - pathlib is slow to import
        files = [path for path in self.hidden if not any(f"{path}/".startswith(f"{one}/") for one in directories)]
        parents = {os.path.dirname(path) for path in files} - {"/"}  # noqa: PTH120 - as above
        return tuple(sorted(path for path in parents if os.path.isdir(path)))  # noqa: PTH112 - as above

    def _rebuild(self, directory: str) -> list[str]:
        is_writable = any(f"{directory}/".startswith(f"{path}/") for path in self.writable)
        options = ["--tmpfs", directory]
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_symlink():
                    options += ["--symlink", os.readlink(entry.path), entry.path]  # noqa: PTH115 - as above
                elif entry.path not in self.hidden:
                    options += ["--bind" if is_writable else "--ro-bind", entry.path, entry.path]
        return options

    @property
    def families(self) -> tuple[int, ...]:
        """The address families of the sockets that are allowed; bubblewrap's own network has no way out."""
        return seccomp.NETWORK_FAMILIES if self.network or self.kind == "bwrap" else ()


class Confinement:
    """A sandbox made ready for one start of `argv`; `enforce` runs in the child, before it becomes the command.

    The command gets the variables `env`; `start_env` are those to start `argv` with.
    """

    def __init__(
        self, sandbox: Sandbox, argv: Sequence[str], cwd: str, temporary: str | None = None, env: Env = _NO_VARIABLES
    ) -> None:
        self.argv = list(argv)
        self.start_env = env
        self.descriptors: tuple[int, ...] = ()
        # In bubblewrap nothing but what is writable can be changed in any way.
        self._filter = seccomp.filter_program(sandbox.families, ask_about_changes=sandbox.kind == "landlock")
        self._ruleset: landlock.Ruleset | None = None
        if sandbox.kind == "bwrap":
            # Bubblewrap itself runs outside: variables such as LD_PRELOAD are set inside only.
            options = "".join(f"--setenv\0{name}\0{value}\0" for name, value in env.items())
            self.descriptors = (_in_memory(self._filter), _in_memory(os.fsencode(options)))
            self.argv = sandbox.argv(argv, cwd, *self.descriptors)
            self.start_env = _NO_VARIABLES
        else:
            writable = (*sandbox.writable, *([temporary] if temporary else []))
            self._ruleset = landlock.Ruleset(network=sandbox.network)
            self._ruleset.allow_reading_system(sandbox.hidden)
            self._changeable = self._ruleset.allow_writing(writable, sandbox.hidden)
            self._channel = socket.socketpair()

    def enforce(self) -> None:
        """Confine this process, unless bubblewrap is to do so. Raises `OSError`."""
        if self._ruleset is not None:
            drop_capabilities()
            self._ruleset.enforce()
            listener = seccomp.enforce(self._filter)
            socket.send_fds(self._channel[1], [b"."], [] if listener is None else [listener])

    def open_broker(self) -> PermissionBroker | None:
        """Wait for `enforce` in the child; return what answers its calls, `None` if there is nothing to answer."""
        if self._ruleset is None:
            return None
        self._channel[1].close()
        _, descriptors, _, _ = socket.recv_fds(self._channel[0], 1, 1)
        self._channel[0].close()
        return PermissionBroker(descriptors[0], self._changeable) if descriptors else None

    def close(self) -> None:
        """Let go of what is open here."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        if self._ruleset is not None:
            self._ruleset.close()
            for end in self._channel:
                end.close()


def _in_memory(data: bytes) -> int:
    """Return the descriptor of a file with `data`, which exists in memory only."""
    descriptor = os.memfd_create("sandbox", 0)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class Support(NamedTuple):
    """The sandboxes of this machine: each kind with the path of its program, and why the other kinds are not there."""

    kinds: Mapping[Kind, str]
    missing: Mapping[Kind, str]


def choose_sandbox(wanted: Kind | Literal["auto"], search_path: str) -> tuple[Kind, str]:
    """Return the sandbox and the path of its program, the strongest one that works here for "auto".

    Raises `OSError` if none does. Starts a program to test it.
    """
    kinds: tuple[Kind, ...] = ("bwrap", "landlock") if wanted == "auto" else (wanted,)
    support = find_sandboxes(search_path, kinds)
    for kind in kinds:
        if kind in support.kinds:
            return kind, support.kinds[kind]
    raise OSError("; ".join(support.missing[kind] for kind in kinds))


def find_sandboxes(search_path: str, wanted: Sequence[Kind]) -> Support:
    """Find out which of the `wanted` sandboxes work here, by trying; bubblewrap is looked for in `search_path`."""
    kinds: dict[Kind, str] = {}
    missing: dict[Kind, str] = {}
    probes: dict[Kind, Callable[[], str]] = {"bwrap": partial(_probe_bwrap, search_path), "landlock": _probe_landlock}
    for kind in wanted:
        try:
            kinds[kind] = probes[kind]()
        except OSError as error:
            missing[kind] = str(error)
    return Support(kinds, missing)


def _probe_bwrap(search_path: str) -> str:
    if not seccomp.is_supported():
        raise OSError(_no_filter())
    names = [os.path.join(directory, "bwrap") for directory in search_path.split(os.pathsep) if directory]  # noqa: PTH118
    program = next((name for name in names if os.access(name, os.X_OK)), None)
    if program is None:
        raise OSError("bubblewrap (bwrap) is not installed")
    confinement = Confinement(Sandbox("bwrap", program=program), ["/bin/true"], "/")
    try:
        tried = subprocess.run(
            confinement.argv,
            pass_fds=confinement.descriptors,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError("bubblewrap did not end in time") from None
    finally:
        confinement.close()
    if tried.returncode:
        raise OSError(f"bubblewrap does not work here: {tried.stderr.decode(errors='replace').strip()[:200]}")
    return program


def read_only(directory: str, hidden: Sequence[str]) -> bool:
    """Confine this process for good to reading `directory`, if Landlock works here; return whether it does.

    The `hidden` paths (each a real path) can only be listed. Python's own library, parts of which are loaded on first
    use, can be read, too. There is no network. Raises `OSError`.
    """
    if landlock.abi_version() < landlock.ABI_TRUNCATION or not seccomp.is_supported():
        return False
    ruleset = landlock.Ruleset(network=False)
    ruleset.allow_reading([directory, os.path.dirname(os.path.realpath(os.__file__))], hidden)  # noqa: PTH120 - as above
    for path in hidden:
        ruleset.allow_listing(path)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    drop_capabilities()
    ruleset.enforce()
    ruleset.close()
    listener = seccomp.enforce(seccomp.filter_program((), ask_about_changes=True))
    if listener is not None:
        os.close(listener)
    return True


def _probe_landlock() -> str:
    check_landlock(landlock.abi_version())
    if not seccomp.is_supported():
        raise OSError(_no_filter())
    return ""


def check_landlock(abi: int) -> None:
    """Raise `OSError` if this version of Landlock does not keep a command from other processes."""
    if abi < landlock.ABI_SIGNALS:
        raise OSError(f"Landlock confines commands from Linux 6.12 on (this kernel has version {abi or 'none'} of it)")


def _no_filter() -> str:
    return f"system calls cannot be filtered on {platform.machine()}"


def describe(kind: Kind, *, network: bool) -> str:
    """Return what a sandbox keeps a command from, for people and models."""
    name = "bubblewrap" if kind == "bwrap" else f"Landlock (version {landlock.abi_version()}) and seccomp"
    return f"{name}, {'with' if network else 'without'} network"


def lower_priority() -> None:
    """Have everything else run first, and the kernel end this process first when memory runs out."""
    os.nice(_NICENESS)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123 - pathlib is slow to import
        score.write(_OOM_SCORE)


def drop_capabilities() -> None:
    """Give up for good, where this process is root's, what root may do beyond working on files."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_MAX_CAPABILITY + 1):
        if capability != _KEPT_CAPABILITY:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL beyond the last one
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    kept = struct.pack("=6I", _KEPT_CAPABILITIES, _KEPT_CAPABILITIES, 0, 0, 0, 0)
    if libc.capset(header, kept):
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")
