"""Attempts of commands to leave their sandbox, as root and as an ordinary user, in each sandbox that works here."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.polling import until
from support.processes import started

import service
from service.config.schema import parse_config
from service.config.tools import ExecLimitsConfig, GlobalExecConfig
from service.core.processes.sandbox import PROGRAM_DIRECTORIES, check_landlock, find_sandboxes
from service.tools.exec import ExecTool
from service.tools.exec_sandbox import ExecSandbox
from service.tools.tool import ToolContext, ToolError

SECRET = "a-token-nobody-may-read"
#: A Python that every user can start, which the one that runs the tests may not be.
PYTHON = "/usr/bin/python3"
#: Where bubblewrap is, if not where the gateway looks for it.
DIRECTORIES = os.environ.get("BWRAP_DIRECTORY", PROGRAM_DIRECTORIES)
PACKAGE = str(Path(service.__file__).parents[1])
#: The supervisor, which needs only the standard library, so that any user can start it with the system's Python.
SUPERVISOR = (
    "import sys; sys.path.append(sys.argv[1]); from service.core.processes.supervisor import main; "
    "sys.exit(main(sys.argv[2:]))"
)


class Place(NamedTuple):
    """A home directory with a state directory, and the workspace in that, of the user who runs commands."""

    home: Path
    workspace: Path
    sandbox: str
    user: int

    def run(self, command: str, *, workspace: Path | None = None, **config: Any) -> str:
        """Return what `exec` says of a shell command."""
        settings = GlobalExecConfig.model_validate({"sandbox": self.sandbox, **config})
        chosen = ExecSandbox.choose(settings, DIRECTORIES)
        hidden = (str(self.home / "openclaw.json"), str(self.home / "state"))
        workspace = workspace or self.workspace
        if self.user == os.getuid():
            tool = ExecTool({"PATH": "/usr/bin:/bin"}, settings, DIRECTORIES)
            context = ToolContext("main", workspace, "s", "r", tuple(map(Path, hidden)))
            return tool.run({"command": command, "timeout_seconds": 60}, context)
        order = {
            "argv": ["/bin/sh", "-c", command],
            "cwd": str(workspace),
            "env": {"PATH": "/usr/bin:/bin"},
            "timeout_seconds": 60,
            "kept_bytes": 100_000,
            "max_output_bytes": 1_000_000,
            "limits": chosen.limits,
            "sandbox": chosen.for_workspace(workspace, hidden),
        }
        report = self._supervise(json.dumps(order).encode() + b"\n")
        stdout, stderr = report["stdout"]["head"], report["stderr"]["head"]
        return f"status {report['status']} cause {report['cause']}\nstdout:\n{stdout}\nstderr:\n{stderr}"

    def _supervise(self, order: bytes) -> Any:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(order)
            done = subprocess.run(
                [PYTHON, "-I", "-S", "-c", SUPERVISOR, PACKAGE, str(theirs.fileno())],
                user=self.user,
                group=pwd.getpwuid(self.user).pw_gid,
                extra_groups=[],
                env={},
                cwd="/",
                pass_fds=[theirs.fileno()],
                capture_output=True,
                check=False,
            )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


def _skip_without(sandbox: str) -> None:
    support = find_sandboxes(DIRECTORIES, ["bwrap" if sandbox == "bwrap" else "landlock"])
    if support.missing:
        pytest.skip("; ".join(support.missing.values()))


@pytest.fixture(params=["landlock", "bwrap"])
def sandbox(request: pytest.FixtureRequest) -> str:
    _skip_without(request.param)
    return str(request.param)


@pytest.fixture(params=["root", "nobody"])
def user(request: pytest.FixtureRequest) -> int:
    if os.getuid() != 0:
        if request.param == "root":
            pytest.skip("needs root")
        return os.getuid()
    if not Path(PYTHON).exists():
        pytest.skip(f"there is no {PYTHON} that every user can start")
    return pwd.getpwnam(request.param).pw_uid


@pytest.fixture
def place(sandbox: str, user: int) -> Iterator[Place]:
    home = Path(tempfile.mkdtemp(prefix="home-", dir="/var/tmp"))
    workspace = home / "state" / "workspace"
    workspace.mkdir(parents=True)
    for file in (home / "openclaw.json", home / "state" / "sessions.sqlite", home / "readable.txt"):
        file.write_text(SECRET if file.name != "readable.txt" else "anybody may read this")
    if os.getuid() == 0:
        for path in (home, *home.rglob("*")):
            os.chown(path, user, -1)
    yield Place(home, workspace, sandbox, user)
    shutil.rmtree(home)


def test_workspace_is_written_and_system_is_read(place: Place) -> None:
    told = place.run(
        f"mkdir -p a/b && echo tea > a/b/c && cat a/b/c && cat {place.home}/readable.txt && id -u && ls /usr"
    )
    assert "status 0" in told
    assert "tea\nanybody may read this" in told
    assert (place.workspace / "a" / "b" / "c").read_text() == "tea\n"


def test_temporary_files_are_written_and_removed(place: Place) -> None:
    told = place.run("echo $TMPDIR; mktemp; echo tea > $TMPDIR/x; cat $TMPDIR/x; mkdir -p $TMPDIR/a/b/c")
    assert "status 0" in told
    directory = told.partition("stdout:\n")[2].splitlines()[0]
    assert directory == "/tmp" or not Path(directory).exists()


def test_private_files_cannot_be_read(place: Place) -> None:
    paths = [place.home / "openclaw.json", place.home / "state" / "sessions.sqlite"]
    names = " ".join(map(str, paths))
    told = place.run(
        f"cat {names}; ln {paths[0]} hard; cat hard; ln -s {paths[0]} soft; cat soft; cat ../sessions.sqlite"
    )
    assert SECRET not in told
    listed = place.run("ls -a ..; ls -a /var/tmp >/dev/null; true")
    assert "sessions.sqlite" not in listed


def test_copies_of_private_files_cannot_be_read(sandbox: str, tmp_path: Path) -> None:
    workspace = tmp_path / "state" / "workspace"
    workspace.mkdir(parents=True)
    hidden = tmp_path / "openclaw.json"
    copies = [tmp_path / name for name in ("openclaw.json.bak", ".openclaw.json.swp", "openclaw.json~")]
    for file in (hidden, *copies):
        file.write_text(SECRET)
    tool = ExecTool({}, GlobalExecConfig.model_validate({"sandbox": sandbox}), DIRECTORIES)
    for directory in (workspace, tmp_path):
        context = ToolContext("main", directory, "s", "r", (hidden, tmp_path / "state"))
        told = tool.run({"command": f"cat {hidden} {' '.join(map(str, copies))}; echo ended"}, context)
        assert "ended" in told
        assert SECRET not in told


def test_hidden_file_with_another_link_refuses_commands(sandbox: str, tmp_path: Path) -> None:
    """Landlock grants what is beneath a directory, and bubblewrap hides a path: both would show the link."""
    workspace, state = tmp_path / "workspace", tmp_path / "state"
    (state / "logs").mkdir(parents=True)
    workspace.mkdir()
    tool = ExecTool({}, GlobalExecConfig.model_validate({"sandbox": sandbox}), DIRECTORIES)
    context = ToolContext("main", workspace, "s", "r", (tmp_path / "openclaw.json", state))
    for hidden in (tmp_path / "openclaw.json", state / "sessions.sqlite"):
        hidden.write_text(SECRET)
        (workspace / "linked").hardlink_to(hidden)
        with pytest.raises(ToolError, match=rf"did not run: {hidden} has another hard link.*-samefile {hidden}`"):
            tool.run({"command": "cat linked"}, context)
        (workspace / "linked").unlink()
    (state / "logs" / "model.log").write_text("tea")
    (workspace / "linked").hardlink_to(state / "logs" / "model.log")
    assert "status 0" in tool.run({"command": "true"}, context)


def test_command_cannot_change_files_outside_workspace(place: Place) -> None:
    config = place.home / "openclaw.json"
    place.run(
        f"echo x > {config}; echo x >> {place.home}/readable.txt; rm -f {place.home}/readable.txt; "
        f"mv {place.home}/readable.txt moved; touch {place.home}/new; mkdir {place.home}/state/new; "
        f"truncate -s 0 {config}; echo x > /tmp/openclaw-escaped; rm -rf {place.home}/state/sessions.sqlite"
    )
    assert config.read_text() == SECRET
    assert (place.home / "readable.txt").read_text() == "anybody may read this"
    assert (place.home / "state" / "sessions.sqlite").read_text() == SECRET
    assert sorted(path.name for path in place.home.iterdir()) == ["openclaw.json", "readable.txt", "state"]
    assert not Path("/tmp/openclaw-escaped").exists()


def test_variables_of_command_do_not_reach_sandbox_itself(sandbox: str, tmp_path: Path) -> None:
    """The dynamic linker obeys some before a program begins: with LD_PRELOAD it runs code, here it writes a file."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    tool = ExecTool({"PATH": "/usr/bin:/bin"}, GlobalExecConfig.model_validate({"sandbox": sandbox}), DIRECTORIES)
    env = {"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": str(tmp_path / "escaped"), "EMPTY": "", "TEA": "green"}
    told = tool.run({"argv": ["env"], "env": env}, ToolContext("main", workspace, "s", "r"))
    assert "\nEMPTY=\nTEA=green\n" in told
    assert list(tmp_path.iterdir()) == [workspace]


def test_command_does_not_choose_place_of_its_temporary_directory(sandbox: str, tmp_path: Path) -> None:
    """It is made from outside of the sandbox, and can be written to."""
    workspace, elsewhere = tmp_path / "workspace", tmp_path / "elsewhere"
    workspace.mkdir()
    elsewhere.mkdir()
    tool = ExecTool({"PATH": "/usr/bin:/bin"}, GlobalExecConfig.model_validate({"sandbox": sandbox}), DIRECTORIES)
    for given in (elsewhere, tmp_path / "missing"):
        arguments = {"command": "echo tea > $TMPDIR/x && echo in $TMPDIR", "env": {"TMPDIR": str(given)}}
        told = tool.run(arguments, ToolContext("main", workspace, "s", "r"))
        assert "status 0" in told
        assert str(given) not in told


def test_private_files_in_workspace_stay_hidden(place: Place) -> None:
    (place.home / "project").mkdir()
    if os.getuid() == 0:
        os.chown(place.home / "project", place.user, -1)
    told = place.run(
        "cat openclaw.json state/sessions.sqlite; echo x > openclaw.json; echo x > state/sessions.sqlite; "
        "rm -rf openclaw.json state; echo tea > project/a; cat project/a",
        workspace=place.home,
    )
    assert SECRET not in told
    assert "tea" in told
    assert (place.home / "openclaw.json").read_text() == SECRET
    assert (place.home / "state" / "sessions.sqlite").read_text() == SECRET


def test_other_processes_are_out_of_reach(place: Place) -> None:
    argv = ["/bin/sleep", "120"]
    with started(argv, user=place.user, env={"TOKEN": SECRET}) as other:
        told = place.run(f"cat /proc/{other.pid}/environ; cat /proc/*/environ; kill -9 {other.pid}; kill -9 -1; true")
        assert SECRET not in told
        assert other.poll() is None
        other.send_signal(signal.SIGKILL)


SET_OTHERS = """
import ctypes, os, struct, sys
libc, other = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
PRLIMIT, IOPRIO_SET, UNSHARE = (302, 251, 272) if os.uname().machine == "x86_64" else (261, 30, 97)
def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
def attempt():
    for name, attack in {
        "time": lambda: call(PRLIMIT, other, 0, struct.pack("QQ", 0, 0), None),
        "files": lambda: call(PRLIMIT, other, 7, struct.pack("QQ", 0, 0), None),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, other, 19),
        "priorities": lambda: os.setpriority(os.PRIO_PGRP, other, 19),
        "processors": lambda: os.sched_setaffinity(other, os.sched_getaffinity(0)),
        "scheduler": lambda: os.sched_setscheduler(other, os.SCHED_IDLE, os.sched_param(0)),
        "disk": lambda: call(IOPRIO_SET, 1, other, 3 << 13),
    }.items():
        try:
            attack()
            print("set", name)
        except OSError:
            pass
attempt()
libc.syscall(UNSHARE, 0x10000000)  # a user namespace, in which it has all capabilities
attempt()
os.setpriority(os.PRIO_PROCESS, 0, 15)
call(PRLIMIT, 0, 7, struct.pack("QQ", 64, 64), None)
print("own", os.getpriority(os.PRIO_PROCESS, 0))
"""


def test_limits_and_priorities_of_other_processes_cannot_be_set(place: Place) -> None:
    (place.workspace / "set.py").write_text(SET_OTHERS)
    group = pwd.getpwuid(place.user).pw_gid
    with started(["/bin/sleep", "120"], user=place.user, group=group, extra_groups=[], start_new_session=True) as other:
        told = place.run(f"{PYTHON} set.py {other.pid}")
        assert other.poll() is None
        other.send_signal(signal.SIGKILL)
    assert "stdout:\nown 15\n" in told


DATAGRAMS = """
import socket, sys
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
    try:
        first, second = socket.socketpair(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
        first.sendto(b"leak", sys.argv[1])
    except OSError:
        pass
for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
    first, second = socket.socketpair(socket.AF_UNIX, kind)
    first.sendall(b"fine")
    print(second.recv(4).decode())
"""


@pytest.mark.parametrize("network", [True, False])
def test_datagrams_do_not_reach_sockets_of_file_system(place: Place, *, network: bool) -> None:
    """Such as those of the system's log and of its service manager."""
    (place.workspace / "send.py").write_text(DATAGRAMS)
    path = place.home / "datagrams"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        path.chmod(0o777)
        receiver.setblocking(False)
        told = place.run(f"{PYTHON} send.py {path}", network=network)
        with pytest.raises(BlockingIOError):
            receiver.recv(4)
    assert "stdout:\nfine\nfine\n" in told


def test_supervisor_and_guard_cannot_be_killed(place: Place) -> None:
    """Both together are what a command needed to kill to leave processes behind."""
    told = place.run(
        "guard=$(sed -n 's/^PPid:\t//p' /proc/$PPID/status 2>/dev/null); kill -9 $PPID $guard 2>&1; "
        "(setsid sleep 61.5 &); echo still here"
    )
    assert "stdout:" in told, "the supervisor did not report"
    sleeping = subprocess.run(["pgrep", "-f", "sleep 61[.]5"], capture_output=True, text=True, check=False)
    assert sleeping.stdout == ""


CONNECT = """
import socket, sys
for family, kind, address in (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(sys.argv[1]))),
    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", int(sys.argv[1]))),
    (socket.AF_UNIX, socket.SOCK_STREAM, sys.argv[2]),
):
    try:
        with socket.socket(family, kind) as client:
            client.settimeout(2)
            client.connect(address)
            client.send(b"leak")
            print("reached", family.name, kind.name)
    except OSError as error:
        print("refused", family.name, kind.name, error)
"""


def connect(place: Place, *, network: bool) -> tuple[str, bytes]:
    """Have a command connect to this process: what it says, and what came by UDP."""
    path = place.home / "socket"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(path))
        path.chmod(0o777)
        local.listen()
        port = server.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", port))
            datagrams.settimeout(0.2)
            (place.workspace / "connect.py").write_text(CONNECT)
            told = place.run(f"{PYTHON} connect.py {port} {path} || echo failed", network=network)
            try:
                received = datagrams.recv(100)
            except TimeoutError:
                received = b""
    return told, received


def test_network_is_refused_unless_allowed(place: Place) -> None:
    told, received = connect(place, network=False)
    assert "reached AF_INET SOCK_STREAM" not in told
    assert "refused AF_UNIX SOCK_STREAM" in told
    assert received == b""


def test_network_is_there_when_allowed_but_sockets_of_file_system_are_not(place: Place) -> None:
    told, received = connect(place, network=True)
    assert "reached AF_INET SOCK_STREAM" in told
    assert received == b"leak"
    assert "refused AF_UNIX SOCK_STREAM" in told


def test_devices_and_mounts_are_refused(place: Place) -> None:
    told = place.run(
        "mount -t tmpfs x . 2>/dev/null && echo mounted; mknod disk b 254 0 2>/dev/null && echo made; "
        "for disk in /dev/vda /dev/sda /dev/mem; do head -c 1 $disk 2>/dev/null && echo read; done; "
        "echo 1 > /proc/sys/kernel/sysrq 2>/dev/null && echo set; echo through > /dev/null && echo fine"
    )
    assert told.partition("stdout:\n")[2].startswith("fine\n")


PUBLISH = """
import ctypes, os, struct, sys

libc = ctypes.CDLL(None)
access_list = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 7, 2**32 - 1) for tag in (1, 4, 16, 32)
)

def by_link(path):
    os.symlink(path, "link")
    try:
        os.chmod("link", 0o777)
    finally:
        os.unlink("link")

def by_descriptor(path):
    file = os.open(path, os.O_PATH)
    os.chmod(f"/proc/self/fd/{file}", 0o777)

def by_directory(path):
    directory = os.open(os.path.dirname(path), os.O_PATH)
    os.chmod(os.path.basename(path), 0o777, dir_fd=directory)

def by_empty_path(path):
    file = os.open(path, os.O_PATH)
    if libc.syscall(452, file, b"", 0o777, 0x1000):
        raise OSError

ways = [
    lambda path: os.chmod(path, 0o777),
    lambda path: os.chmod(os.path.relpath(path), 0o777),
    by_link, by_descriptor, by_directory, by_empty_path,
    lambda path: os.chmod(f"/proc/self/root{path}", 0o777),
    lambda path: os.chmod(f"/proc/{os.getpid()}/cwd/{os.path.relpath(path)}", 0o777),
    lambda path: os.fchmod(os.open(path, os.O_RDONLY), 0o777),
    lambda path: os.setxattr(path, "system.posix_acl_access", access_list),
    lambda path: os.chown(path, -1, 12345),
    lambda path: os.lchown(path, 12345, -1),
]
for path in sys.argv[1:]:
    for number, way in enumerate(ways):
        try:
            way(path)
            print("done", number, path)
        except OSError:
            pass
"""

MODES = """
import os, stat, subprocess, sys, tempfile

def mode(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))

os.makedirs("a/b", exist_ok=True)
with open("a/b/run", "w") as file:
    file.write("#!/bin/sh\\necho it ran\\n")
    os.fchmod(file.fileno(), 0o640)
print(mode("a/b/run"))
subprocess.run(["chmod", "+x", "a/b/run"], check=True)
subprocess.run(["cp", "-p", "a/b/run", "copied"], check=True)
subprocess.run(["./copied"], check=True)
os.symlink("a/b/run", "soft")
os.chmod("soft", 0o604)
print(mode("a/b/run"))
inside = os.open("a/b", os.O_RDONLY)
os.chmod("run", 0o600, dir_fd=inside)
print(mode("a/b/run"))
os.chmod(os.path.abspath("a/b/run"), 0o606)
print(mode("a/b/run"))
os.chmod(f"/proc/self/fd/{inside}", 0o1750)
print(mode("a/b"))
os.chown("a", os.getuid(), -1)
with tempfile.NamedTemporaryFile() as file:
    os.chmod(file.name, 0o400)
    print(mode(file.name))
for path in ("missing", "x" * 300, "x" * 5000, "soft/b"):
    try:
        os.chmod(path, 0o600)
    except OSError as error:
        print(type(error).__name__, error.errno)
"""


@pytest.mark.parametrize("holds_state", [False, True])
def test_private_files_are_not_published(place: Place, *, holds_state: bool) -> None:
    private = [place.home / "openclaw.json", place.home / "state", place.home / "state" / "sessions.sqlite"]
    if place.sandbox == "landlock" or not holds_state:
        private.append(place.home)  # in bubblewrap the directory of the workspace itself may change
    if not holds_state:
        private.append(place.home / "readable.txt")
    workspace = place.home / "project" if holds_state else place.workspace
    workspace.mkdir(exist_ok=True)
    (workspace / "publish.py").write_text(PUBLISH)
    for path in private:
        path.chmod(path.stat().st_mode & 0o700)
    if os.getuid() == 0:
        os.chown(workspace, place.user, -1)
    before = [path.stat() for path in private]
    told = place.run(
        f"{PYTHON} {workspace}/publish.py {' '.join(map(str, private))}; echo ended",
        workspace=place.home if holds_state else None,
    )
    kept = [(status.st_mode, status.st_uid, status.st_gid) for status in before]
    assert "ended" in told
    if place.sandbox == "landlock":  # bubblewrap has an empty directory in the place of a hidden one
        assert "done" not in told
    assert [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in private] == kept
    assert not any("system.posix_acl_access" in os.listxattr(path) for path in private)


def test_file_that_will_replace_private_one_is_not_published(place: Place) -> None:
    """Its name comes after the command has begun."""
    if place.sandbox == "bwrap":
        pytest.skip("bubblewrap hides what exists at the start")
    project = place.home / "project"
    project.mkdir()
    if os.getuid() == 0:
        os.chown(project, place.user, -1)
    replacement = place.home / ".openclaw.json.new"
    waiting = (
        f"until test -e {replacement}; do sleep 0.02; done; chmod 666 {replacement}; chmod 700 project; echo ended"
    )
    told: list[str] = []
    running = threading.Thread(
        target=lambda: told.append(place.run(f"touch project/begun; {waiting}", workspace=place.home))
    )
    running.start()
    until((project / "begun").exists)
    replacement.touch(mode=0o600)
    if os.getuid() == 0:
        os.chown(replacement, place.user, -1)
    running.join()
    assert "ended" in told[0]
    assert replacement.stat().st_mode & 0o777 == 0o600
    assert project.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("is_workspace", [False, True])
def test_replaced_private_file_stays_hidden_from_running_command(place: Place, *, is_workspace: bool) -> None:
    """As when the configuration is edited meanwhile."""
    config, project = place.home / "openclaw.json", place.home / "project"
    project.mkdir()
    if os.getuid() == 0:
        os.chown(project, place.user, -1)
    begun = (project if is_workspace else place.workspace) / "begun"
    line = f"touch {begun}; until test -e {begun}.over; do sleep 0.02; done; cat {config}"
    line += f" {place.home}/.openclaw.json.x; "
    told: list[str] = []
    workspace = place.home if is_workspace else None
    running = threading.Thread(target=lambda: told.append(place.run(f"{line} echo ended", workspace=workspace)))
    running.start()
    until(begun.exists)
    for name in (".openclaw.json.x", ".openclaw.json.y"):
        (place.home / name).write_text(SECRET)
        if os.getuid() == 0:
            os.chown(place.home / name, place.user, -1)
    (place.home / ".openclaw.json.y").replace(config)
    begun.with_name("begun.over").touch()
    running.join()
    assert "ended" in told[0]
    assert SECRET not in told[0]


def test_modes_in_workspace_are_changed(place: Place) -> None:
    (place.workspace / "modes.py").write_text(MODES)
    told = place.run(f"umask 022; {PYTHON} -u modes.py")
    lines = told.partition("stdout:\n")[2].splitlines()
    assert lines[:7] == ["0o640", "it ran", "0o604", "0o600", "0o606", "0o1750", "0o400"], told
    assert lines[7:11] == [
        "FileNotFoundError 2",
        "OSError 36",
        "OSError 36",
        "NotADirectoryError 20",
    ]


PRIVILEGED = """
import os, stat

os.umask(0)
ways = [
    lambda path: os.open(path, os.O_CREAT | os.O_WRONLY, 0o4755),
    lambda path: os.open(path, os.O_CREAT | os.O_WRONLY, 0o2755),
    lambda path: os.mknod(path, stat.S_IFREG | 0o4755),
    lambda path: os.chmod(path, 0o4755),
    lambda path: os.fchmod(os.open(path, os.O_WRONLY), 0o6755),
    lambda path: os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o4755),
]
for number, way in enumerate(ways):
    with open("plain", "w"):
        pass
    try:
        way(f"new{number}" if number < 3 else "plain")
        print("done", number)
    except OSError:
        pass
print("ended")
"""


def test_programs_with_rights_of_their_owner_are_not_made(place: Place) -> None:
    (place.workspace / "privileged.py").write_text(PRIVILEGED)
    told = place.run(f"{PYTHON} privileged.py")
    assert told.partition("stdout:\n")[2].startswith("ended\n"), told
    assert not [path for path in place.workspace.iterdir() if path.stat().st_mode & 0o6000]


def test_command_of_root_has_few_capabilities(place: Place) -> None:
    told = place.run("grep -E 'Cap(Eff|Prm|Bnd|Amb)' /proc/self/status")
    rights = [int(line.split()[1], 16) for line in told.splitlines() if line.startswith(("CapEff", "CapPrm"))]
    assert len(rights) == 2
    assert all(right & ~(1 << 1) == 0 for right in rights)  # CAP_DAC_OVERRIDE


UNCOUNTED = """
import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)
print("memfd", hasattr(os, "memfd_create") and libc.memfd_create(b"x", 0))
print("segment", libc.shmget(0x4321, 1 << 20, 0o1600))
print("semaphores", libc.semget(0x4321, 1, 0o1600))
print("messages", libc.msgget(0x4321, 0o1600))
"""


def test_memory_that_no_limit_counts_is_refused(place: Place) -> None:
    (place.workspace / "uncounted.py").write_text(UNCOUNTED)
    told = place.run(f"{PYTHON} uncounted.py")
    assert told.partition("stdout:\n")[2].startswith("memfd -1\nsegment -1\nsemaphores -1\nmessages -1\n"), told


def test_shared_memory_of_other_programs_is_out_of_reach(place: Place) -> None:
    directory = Path("/dev/shm")
    if not directory.is_dir():
        pytest.skip("there is no /dev/shm")
    segment, left = directory / f"segment-{os.getpid()}", directory / f"left-{os.getpid()}"
    segment.write_text(SECRET)
    os.chown(segment, place.user, -1)
    told = place.run(f"cat {segment}; echo changed > {segment}; echo x > {left}; ls {directory}; true")
    after, lasting = segment.read_text(), left.exists()
    segment.unlink()
    left.unlink(missing_ok=True)
    assert (SECRET in told, after, lasting) == (False, SECRET, False)
    assert place.sandbox == "bwrap" or segment.name not in told.partition("stdout:\n")[2].partition("stderr:")[0]


def test_terminals_are_out_of_reach(place: Place) -> None:
    keyboard, terminal = os.openpty()
    with os.fdopen(keyboard, "wb", 0) as typing, os.fdopen(terminal, "rb", 0) as screen:
        name = os.ttyname(screen.fileno())
        os.chown(name, place.user, -1)
        typing.write(b"typed by somebody\n")
        told = place.run(
            f"timeout 2 head -n 1 {name}; echo written > {name}; head -c 1 /dev/tty; "
            "head -c 0 /dev/ptmx && echo opened; true"
        )
        assert "typed" not in told
        assert place.sandbox == "bwrap" or "opened" not in told  # bubblewrap has terminals of its own
        assert screen.readline() == b"typed by somebody\n"


def test_more_processes_than_allowed_end_command(place: Place) -> None:
    told = place.run(
        "for i in $(seq 60); do sleep 30 & done; sleep 30", limits={"maxProcesses": 20, "maxCpuSeconds": 60}
    )
    assert (
        "more than 20 processes" in told
        or "cause processes" in told
        or "fork" in told.lower()
        or "Resource temporarily" in told
    )


def test_more_memory_than_allowed_ends_command(place: Place) -> None:
    program = "x = []\nwhile True: x.append(bytearray(b'x' * 1000000))"
    (place.workspace / "grow.py").write_text(program)
    told = place.run(f"{PYTHON} grow.py; echo after", limits={"maxMemoryMb": 200})
    assert "more than 209715200 bytes" in told or "cause memory" in told or "MemoryError" in told


def test_larger_file_than_allowed_is_cut(place: Place) -> None:
    place.run("head -c 5000000 /dev/zero > big; true", limits={"maxFileMb": 1})
    assert (place.workspace / "big").stat().st_size == 1024 * 1024


def test_command_gives_way_to_everything_else(place: Place) -> None:
    told = place.run("nice; cat /proc/self/oom_score_adj; ulimit -c")
    assert told.partition("stdout:\n")[2].splitlines()[:3] == [str(min(os.nice(0) + 10, 19)), "1000", "0"]


def test_description_names_sandbox(sandbox: str) -> None:
    tool = ExecTool({}, GlobalExecConfig.model_validate({"sandbox": sandbox}), DIRECTORIES)
    assert "only the workspace and $TMPDIR can be written to, and there is no network" in tool.description
    assert tool.sandbox.to_text().startswith("commands run in a sandbox: ")


def test_commands_are_refused_without_sandbox(tmp_path: Path) -> None:
    """As on a machine without it: bubblewrap is looked for where it is not."""
    tool = ExecTool({}, GlobalExecConfig(sandbox="bwrap"), program_directories=str(tmp_path))
    with pytest.raises(ToolError, match=r"bubblewrap \(bwrap\) is not installed.*tools.exec.sandbox to \"off\""):
        tool.run({"command": "touch here"}, ToolContext("main", tmp_path, "s", "r"))
    assert not (tmp_path / "here").exists()
    assert "refused on this machine" in tool.description


@pytest.mark.parametrize("abi", [0, 3, 5])
def test_landlock_that_does_not_control_signals_is_no_sandbox(abi: int) -> None:
    """A command could end the gateway."""
    with pytest.raises(OSError, match=f"from Linux 6.12 on .*version {abi or 'none'} of it"):
        check_landlock(abi)
    check_landlock(6)


def test_program_that_does_not_work_is_no_sandbox(tmp_path: Path) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho no namespaces here >&2; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    chosen = ExecSandbox.choose(GlobalExecConfig(sandbox="bwrap"), str(tmp_path))
    assert chosen.kind is None
    assert chosen.problem == "bubblewrap does not work here: no namespaces here"


def test_denied_network_without_sandbox_is_refused() -> None:
    with pytest.raises(Exception, match="network: false needs a sandbox"):
        parse_config({"tools": {"exec": {"sandbox": "off", "network": False}}})


def test_limits_come_from_configuration() -> None:
    limits = ExecSandbox.choose(GlobalExecConfig(sandbox="off", limits=ExecLimitsConfig(max_file_mb=2))).limits
    assert limits.file_bytes == 2 * 1024 * 1024
    assert limits.processes == 512
