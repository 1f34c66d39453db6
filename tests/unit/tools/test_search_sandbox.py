"""Attempts of a search process to leave its sandbox, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from support.polling import until
from support.processes import running_children
from support.workspace_tools import use

import service
from service.core.concurrency import spawn
from service.core.processes.sandbox import find_sandboxes
from service.tools.process_slots import ProcessSlots
from service.tools.workspace.search import GrepTool

#: A Python that every user can start, which the one that runs the tests may not be.
PYTHON = "/usr/bin/python3"
PACKAGE = str(Path(service.__file__).parents[1])
ATTEMPTS = """
import json, os, socket, sys
sys.path.append(sys.argv[1])
home = sys.argv[2]
from service.core.processes.sandbox import read_only
confined = read_only(home + "/workspace", [home + "/workspace/openclaw.json", home + "/workspace/state"])
attempts = {
    "read": lambda: open(home + "/workspace/src/a.txt").read(),
    "list": lambda: os.listdir(home + "/workspace"),
    "list hidden": lambda: os.listdir(home + "/workspace/state"),
    "load": lambda: "a\\n".encode("punycode"),
    "read configuration": lambda: open(home + "/workspace/openclaw.json").read(),
    "read state": lambda: open(home + "/workspace/state/sessions.sqlite").read(),
    "read outside": lambda: open(home + "/outside.txt").read(),
    "read system": lambda: open("/etc/passwd").read(),
    "read environment": lambda: open("/proc/self/environ").read(),
    "write": lambda: open(home + "/workspace/src/a.txt", "a"),
    "truncate": lambda: os.truncate(home + "/workspace/src/a.txt", 0),
    "create": lambda: open(home + "/workspace/new", "w"),
    "create temporary": lambda: open("/tmp/openclaw-search", "w"),
    "delete": lambda: os.unlink(home + "/workspace/src/a.txt"),
    "link": lambda: os.link(home + "/workspace/src/a.txt", home + "/workspace/linked"),
    "make directory": lambda: os.mkdir(home + "/workspace/new"),
    "TCP": lambda: socket.create_connection(("127.0.0.1", 9)),
    "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "local socket": lambda: socket.socket(socket.AF_UNIX),
    "execute": lambda: os.execv("/bin/true", ["true"]),
}
done = []
for name, attempt in attempts.items():
    try:
        attempt()
        done.append(name)
    except PermissionError:
        pass
print(json.dumps([confined, done]))
"""


class Home(NamedTuple):
    path: Path
    user: int


@pytest.fixture(autouse=True)
def _landlock() -> None:
    if missing := find_sandboxes("", ["landlock"]).missing:
        pytest.skip("; ".join(missing.values()))


@pytest.fixture(params=["root", "nobody"])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    if os.getuid() != 0 and request.param == "root":
        pytest.skip("needs root")
    if not Path(PYTHON).exists():
        pytest.skip(f"there is no {PYTHON} that every user can start")
    user = pwd.getpwnam(request.param).pw_uid if os.getuid() == 0 else os.getuid()
    path = Path(tempfile.mkdtemp(prefix="home-", dir="/var/tmp"))
    for name in ("workspace/src/a.txt", "workspace/openclaw.json", "workspace/state/sessions.sqlite", "outside.txt"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("tea")
    if os.getuid() == 0:
        for one in (path, *path.rglob("*")):
            os.chown(one, user, -1)
    yield Home(path, user)
    shutil.rmtree(path)


def test_search_reads_workspace_and_nothing_else(home: Home) -> None:
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-c", ATTEMPTS, PACKAGE, str(home.path)],
        user=home.user,
        group=pwd.getpwuid(home.user).pw_gid,
        extra_groups=[] if os.getuid() == 0 else None,
        env={},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, ["read", "list", "list hidden", "load"]]
    assert (home.path / "workspace" / "src" / "a.txt").read_text() == "tea"


def test_search_of_tool_is_confined(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 40 + "b")

    def is_confined(child: psutil.Process) -> bool:
        with suppress(OSError):
            fields = Path(f"/proc/{child.pid}/status").read_text().split("\n")
            return {"Seccomp:\t2", "NoNewPrivs:\t1"} <= set(fields)
        return False

    searching = spawn(lambda: use(tmp_path, GrepTool(ProcessSlots(), seconds=300.0), pattern="^(a+)+$"))
    until(lambda: any(map(is_confined, running_children())))
    searching.kill()
