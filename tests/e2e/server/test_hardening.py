"""The serving process keeps its environment from other processes of its user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.live import live_gateway, scripted_config

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

READ = "import sys; print(len(open(f'/proc/{sys.argv[1]}/environ', 'rb').read()))"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/<pid>/environ")


@pytest.fixture
def user_prefix() -> tuple[str, ...]:
    """A command prefix that runs a program as an ordinary user, empty for a test that already runs as one."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed, and root may read every environment")
    done = subprocess.run([*AS_NOBODY, sys.executable, "-c", "import service"], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("an ordinary user cannot run this Python")
    return AS_NOBODY


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that an ordinary user can reach and write."""
    path = Path(tempfile.mkdtemp(prefix="openclaw-hardening-"))
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def can_start_python(prefix: tuple[str, ...]) -> bool:
    start = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', ''])"
    return subprocess.run([*prefix, sys.executable, "-c", start], check=False, capture_output=True).returncode == 0


def read_environment(prefix: tuple[str, ...], pid: int) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", READ, str(pid)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_environment_of_the_gateway_is_not_readable_by_its_user(
    user_prefix: tuple[str, ...], directory: Path, arguments: tuple[str, ...]
) -> None:
    if arguments and not can_start_python(user_prefix):
        pytest.skip("an ordinary user cannot start this Python again, as the arbiter has to")
    ordinary = subprocess.Popen([*user_prefix, "sleep", "300"])
    try:
        assert int(read_environment(user_prefix, ordinary.pid).stdout) > 0
        with live_gateway(directory, scripted_config(), arguments=arguments, before=user_prefix) as running:
            processes = [running.process.pid, *(one.pid for one in psutil.Process(running.process.pid).children())]
            assert len(processes) == 1 + len(arguments)
            for pid in processes:
                done = read_environment(user_prefix, pid)
                assert "PermissionError" in done.stderr
                assert done.stdout == ""
    finally:
        ordinary.kill()
        ordinary.wait()
