"""A model server shared by the gateways of one state directory: one process, as long as any of them uses it.

Locks belong to the open file, so two servers in one process behave like two processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.polling import until
from support.processes import has_ended, started

from service.core import concurrency
from service.core.errors import GatewayError
from service.models.local.server import LocalService
from service.models.local.shared_server import SharedByLocks
from unit.models.test_local_server import SERVER, free_port, side_by_side

OWNER = """
import gevent.monkey; gevent.monkey.patch_all()
import sys
from pathlib import Path
from service.models.local.server import LocalService
from service.models.local.shared_server import SharedByLocks
url, directory, *args = sys.argv[1:]
share = SharedByLocks(Path(directory), "the/model")
service = LocalService(sys.executable, args, health_url=url, share=share, endpoint={"key": "the owner's"})
with service.in_use() as endpoint:
    print(service._process.pid, endpoint["key"], flush=True)
gevent.sleep(60)
"""

Open = Callable[..., "Neighbour"]


class Neighbour:
    """One gateway's service; each has a port of its own for the program it would run."""

    def __init__(self, directory: Path, name: str, *options: str, **settings: Any) -> None:
        self.told: list[str] = []
        port = free_port()
        self.share = SharedByLocks(directory / "services", "the/model")
        self.service = LocalService(
            sys.executable,
            [SERVER, str(port), *options],
            health_url=f"http://127.0.0.1:{port}/v1/models",
            name="the-model",
            report=self.told.append,
            share=self.share,
            endpoint={"key": f"{name}'s"},
            **settings,
        )

    def use(self, seconds: float = 0.0) -> str:
        """Whose program it was that served."""
        with self.service.in_use() as endpoint:
            concurrency.sleep(seconds)
            return str(endpoint["key"])


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Open]:
    opened: list[Neighbour] = []

    def open_neighbour(name: str, *options: str, **settings: Any) -> Neighbour:
        opened.append(Neighbour(tmp_path, name, *options, **settings))
        return opened[-1]

    yield open_neighbour
    for one in opened:
        one.service.close()


def test_concurrent_users_start_one_program(neighbour: Open) -> None:
    both = [neighbour("ann", "--delay", "0.2"), neighbour("ben", "--delay", "0.2")]
    served: list[str] = []
    side_by_side(*[lambda one=one: served.append(one.use()) for one in both * 3])
    assert len(served) == 6
    assert len(set(served)) == 1
    assert sorted(len(one.told) for one in both) == [0, 2]


def test_files_are_private(neighbour: Open, tmp_path: Path) -> None:
    ann, ben = neighbour("ann"), neighbour("ben")
    assert ann.use() == ben.use() == "ann's"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "services").iterdir()}
    assert modes == {"the%2Fmodel.lock": 0o600, "the%2Fmodel.users": 0o600, "the%2Fmodel.json": 0o600}
    assert (tmp_path / "services").stat().st_mode & 0o777 == 0o700


def test_program_is_not_stopped_while_other_process_uses_it(neighbour: Open) -> None:
    ann, ben = neighbour("ann", idle_stop_seconds=0.2), neighbour("ben")
    with ExitStack() as bens:
        with ann.service.in_use():
            endpoint = bens.enter_context(ben.service.in_use())
        assert endpoint["key"] == "ann's"
        concurrency.sleep(1.5)
        assert len(ann.told) == 2
    until(lambda: ann.told[-1] == "the-model stopped: not needed for 0.2 s")
    assert ben.use() == "ben's"


def test_short_uses_by_other_processes_keep_program_running(neighbour: Open) -> None:
    ann, ben = neighbour("ann", idle_stop_seconds=2.0), neighbour("ben")
    ann.use()
    ends_at = time.monotonic() + 3.0
    while time.monotonic() < ends_at:
        assert ben.use() == "ann's"
        concurrency.sleep(0.3)
    assert len(ann.told) == 2


def test_ending_process_lets_other_users_finish(neighbour: Open) -> None:
    ann, ben = neighbour("ann"), neighbour("ben")
    ann.use()
    with ben.service.in_use() as endpoint:
        assert endpoint["key"] == "ann's"
        closing = concurrency.spawn(ann.service.close)
        concurrency.sleep(0.5)
        assert not closing.dead
    closing.get()
    assert ben.use() == "ben's"
    with pytest.raises(GatewayError):
        ann.use()


def test_dead_program_is_restarted_by_next_user(neighbour: Open) -> None:
    ann, ben = neighbour("ann"), neighbour("ben")
    ann.use()
    assert ann.service._process is not None
    pid = ann.service._process.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: has_ended(pid))
    until(lambda: ben.use() == "ben's")  # what the program left behind may answer for a moment
    assert ann.use() == "ben's"


def test_failed_start_is_reported_to_each_user(neighbour: Open) -> None:
    for one in (neighbour("ann", "--fail"), neighbour("ben", "--fail")):
        with pytest.raises(GatewayError) as refusal:
            one.use()
        assert "exited with status 3" in refusal.value.message


def test_other_process_takes_over_after_owner_is_killed(neighbour: Open, tmp_path: Path) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}/v1/models"
    program = [sys.executable, "-c", OWNER, url, str(tmp_path / "services"), SERVER, port]
    ben = neighbour("ben")
    with started(program, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, whose = owner.stdout.readline().split(maxsplit=1)
        assert whose.strip() == "the owner's" == ben.use()
        owner.kill()
    assert ben.use() == "ben's"
    until(lambda: has_ended(int(pid)))
