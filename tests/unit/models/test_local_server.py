"""A local model server started on demand: one start for all requests, stop, restart, no leftover processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import support
from support.polling import until
from support.processes import has_ended, started
from support.provider_calls import ask, fail, open_provider
from support.upstream_answers import TEXT

from service.config.models import LocalServiceConfig
from service.core import concurrency
from service.core.errors import GatewayError
from service.core.processes.child import ChildProcess
from service.models.local.server import LocalService, LocalServiceProvider

SERVER = str(Path(support.__file__).with_name("model_server.py"))
GATEWAY = """
import gevent.monkey; gevent.monkey.patch_all()
import re, sys
from service.models.local.server import LocalService
url, *args = sys.argv[1:]
service = LocalService(sys.executable, args, health_url=url, log_path=None, report=lambda line: print(line, flush=True))
with service.in_use():
    print(service._process.pid, *re.findall(r"pid ([0-9]+)", service._process.last_output), flush=True)
    gevent.sleep(60)
"""


class Local:
    """A local server under test: its provider, its output, its processes."""

    def __init__(self, folder: Path, *options: str, **settings: Any) -> None:
        self.port = free_port()
        self.log = folder / "logs" / "server.log"
        self.told: list[str] = []
        self.service = LocalService(
            settings.pop("command", sys.executable),
            settings.pop("args", [SERVER, str(self.port), *options]),
            name="the-model",
            health_url=f"{self.url}/models",
            log_path=self.log,
            report=self.told.append,
            **settings,
        )
        self.provider = LocalServiceProvider(open_provider(self.url), self.service)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def pids(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"^pid (\d+)$", self.log.read_text(), re.MULTILINE)]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Callable[..., Local]]:
    opened: list[Local] = []

    def open_local(*options: str, **settings: Any) -> Local:
        opened.append(Local(tmp_path, *options, **settings))
        return opened[-1]

    yield open_local
    for one in opened:
        one.provider.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def side_by_side(*jobs: Callable[[], object]) -> None:
    greenlets = [concurrency.spawn(job) for job in jobs]
    for greenlet in greenlets:
        greenlet.join(60)
        assert greenlet.dead


# starting


def test_concurrent_requests_share_one_start(local: Callable[..., Local]) -> None:
    model = local("--delay", "0.2")
    came: list[str] = []
    side_by_side(*[lambda: came.append(ask(model.provider, "ok")[0])] * 5)
    assert came == [TEXT] * 5
    assert len(model.pids) == 1
    assert model.told[0] == "starting the-model ..."
    assert re.fullmatch(r"the-model is ready after \d+\.\d s", model.told[1])
    assert len(model.told) == 2


def test_server_is_not_started_before_first_request(local: Callable[..., Local]) -> None:
    assert local().told == []


def test_caller_leaving_during_start_does_not_affect_others(local: Callable[..., Local]) -> None:
    model = local("--delay", "0.2")
    came: list[str] = []

    def impatient() -> None:
        with pytest.raises(concurrency.Deadline), concurrency.deadline(0.05):
            ask(model.provider, "ok")

    side_by_side(impatient, lambda: came.append(ask(model.provider, "ok")[0]))
    assert came == [TEXT]
    assert len(model.pids) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"command": "/nowhere/at-all"}, "The model server /nowhere/at-all is not an executable file."),
        ({"cwd": "/nowhere"}, "The model server the-model could not be started: No such file or directory: /nowhere."),
        (
            {"args": [SERVER, "0", "--fail"]},
            "The model server the-model exited with status 3 before it was ready: [31mno such model[0m",
        ),
        (
            {"args": [SERVER, "0"], "ready_timeout_seconds": 0.3},
            r"The model server the-model was not ready within 0.3 s",
        ),
    ],
)
def test_failed_start_is_reported_with_cause(
    local: Callable[..., Local], settings: dict[str, Any], message: str
) -> None:
    model = local(**settings)
    text, error = fail(model.provider, "ok")
    assert (text, error.code) == ("", "provider_unavailable")
    assert error.message.startswith(message)


def test_file_that_is_not_executable_is_reported(local: Callable[..., Local], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF, or not")
    broken.chmod(0o755)
    error = fail(local(command=str(broken)).provider, "ok")[1]
    assert "exited with status 127" in error.message
    assert "Exec format error" in error.message


def test_waiting_callers_share_failure_and_next_caller_retries(local: Callable[..., Local]) -> None:
    model = local("--fail")
    codes: list[str] = []
    side_by_side(*[lambda: codes.append(fail(model.provider, "ok")[1].code)] * 3)
    assert codes == ["provider_unavailable"] * 3
    assert model.told == ["starting the-model ..."]
    fail(model.provider, "ok")
    assert model.told == ["starting the-model ..."] * 2


def test_configuration_defines_server(tmp_path: Path) -> None:
    port = free_port()
    config = LocalServiceConfig.model_validate(
        {"command": sys.executable, "args": [SERVER, str(port)], "cwd": str(tmp_path), "idleStopMs": 60_000}
    )
    url = f"http://127.0.0.1:{port}/v1"
    provider = LocalServiceProvider(open_provider(url), LocalService.from_config(config, url))
    assert ask(provider, "ok")[0] == TEXT
    provider.close()


# stopping


def test_idle_server_is_stopped_and_restarted_on_demand(local: Callable[..., Local]) -> None:
    model = local(idle_stop_seconds=0.3)
    ask(model.provider, "ok")
    until(lambda: has_ended(model.pids[0]))
    until(lambda: model.told[-1] == "the-model stopped: not needed for 0.3 s")
    assert ask(model.provider, "ok")[0] == TEXT
    assert len(model.pids) == 2


def test_server_is_not_stopped_during_answer(local: Callable[..., Local]) -> None:
    model = local(idle_stop_seconds=0.1)
    assert ask(model.provider, "slow")[0] == TEXT  # half a second
    assert len(model.pids) == 1


def test_dead_server_is_restarted(local: Callable[..., Local]) -> None:
    model = local()
    ask(model.provider, "ok")
    os.kill(model.pids[0], signal.SIGKILL)
    until(lambda: model.told[-1] == "the-model was ended by SIGKILL; the next request starts it again")
    assert ask(model.provider, "ok")[0] == TEXT
    assert len(model.pids) == 2


def test_close_ends_server_and_its_children(local: Callable[..., Local]) -> None:
    model = local("--child")
    ask(model.provider, "ok")
    pids = model.pids
    assert len(pids) == 2
    model.provider.close()
    model.provider.close()
    until(lambda: all(map(has_ended, pids)))
    with pytest.raises(GatewayError) as refusal, model.service.in_use():
        pytest.fail("it has been closed")
    assert refusal.value.code == "shutting_down"


def test_close_during_start_ends_start(local: Callable[..., Local]) -> None:
    model = local("--delay", "60")
    codes: list[str] = []

    def close_soon() -> None:
        until(lambda: model.log.exists() and len(model.pids) == 1)
        model.provider.close()

    side_by_side(lambda: codes.append(fail(model.provider, "ok")[1].code), close_soon)
    assert codes == ["shutting_down"]
    assert has_ended(model.pids[0])


def test_server_and_children_end_when_gateway_is_killed() -> None:
    port = free_port()
    server = [SERVER, str(port), "--stubborn", "--child"]
    program = [sys.executable, "-c", GATEWAY, f"http://127.0.0.1:{port}/v1/models", *server]
    with started(program, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        assert [gateway.stdout.readline().split()[0] for _ in range(2)] == ["starting", "python"]
        pids = [int(pid) for pid in gateway.stdout.readline().split()]
        assert len(pids) == 3  # the launcher, the server and its child
        assert not any(map(has_ended, pids))
        gateway.kill()
    until(lambda: all(map(has_ended, pids)))


def test_children_end_with_server(local: Callable[..., Local]) -> None:
    model = local("--child")
    ask(model.provider, "ok")
    server, child = model.pids
    os.kill(server, signal.SIGKILL)
    until(lambda: has_ended(child))


def test_server_ends_when_launcher_is_killed(local: Callable[..., Local]) -> None:
    model = local("--stubborn")
    ask(model.provider, "ok")
    (server,) = model.pids
    os.kill(psutil.Process(server).ppid(), signal.SIGKILL)
    until(lambda: has_ended(server))
    assert ask(model.provider, "ok")[0] == TEXT


# one process


def start(*arguments: str, log_path: Path | None = None) -> ChildProcess:
    return ChildProcess([sys.executable, *arguments], None, dict(os.environ), log_path)


def test_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = start(SERVER, "0", "--stubborn", log_path=tmp_path / "log")
    until(lambda: "pid" in process.last_output)
    process.stop(grace_seconds=0.1)
    assert process.ending() == "was ended by SIGKILL"


def test_process_has_own_session_and_gets_no_ctrl_c() -> None:
    process = start("-c", "import time; time.sleep(60)")
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    process.stop()


def test_process_is_killed_with_its_children() -> None:
    process = start(SERVER, "0", "--stubborn", "--child")
    until(lambda: len(re.findall(r"pid (\d+)", process.last_output)) == 2)
    pids = [int(pid) for pid in re.findall(r"pid (\d+)", process.last_output)]
    process.stop(grace_seconds=0.1)
    assert process.ending() == "was ended by SIGKILL"
    assert all(map(has_ended, pids))


def test_termination_signal_reaches_process_once_and_status_is_returned() -> None:
    code = "import signal, sys, time; signal.signal(15, lambda *_: print('asked', flush=True) or sys.exit(7)); "
    process = start("-c", f"{code}print('ready', flush=True); time.sleep(60)")
    until(lambda: process.last_output == "ready\n")
    process.stop()
    assert (process.ending(), process.last_output) == ("exited with status 7", "ready\nasked\n")


def test_closed_output_is_detected_while_process_runs() -> None:
    read_end, write_end = os.pipe()
    code = "import os, time; os.write(1, b'said'); os.close(1); time.sleep(60)"
    process = ChildProcess([sys.executable, "-c", code], None, dict(os.environ), stdout=write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as output:
        assert output.read() == b"said"
    assert process.is_running()
    process.stop()


def test_standard_input_stays_open_until_process_is_stopped() -> None:
    process = start("-c", "import sys; print('reading', flush=True); sys.stdin.read(); print('ended')")
    until(lambda: process.last_output == "reading\n")
    assert process.is_running()
    process.stop()


def test_process_has_given_environment() -> None:
    environment = {**os.environ, "A_WORD": "for you"}
    program = [sys.executable, "-c", "import os; print(os.environ['A_WORD'])"]
    process = ChildProcess(program, None, environment)
    until(lambda: not process.is_running())
    assert process.last_output == "for you\n"


def test_log_keeps_its_end_and_is_private(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    code = "import sys; print('x' * 3_000_000); print('end', flush=True); sys.stdin.read()"
    process = start("-c", code, log_path=log)
    until(lambda: process.last_output.endswith("end\n"))
    process.trim_log()
    assert log.stat().st_size == 64 * 1024
    assert log.read_text().endswith("end\n")
    assert log.stat().st_mode & 0o777 == 0o600
    process.trim_log()
    assert log.stat().st_size == 64 * 1024
    process.stop()


def test_last_output_is_of_current_process(tmp_path: Path) -> None:
    for word in ("first", "second"):
        process = start("-c", f"print('{word}')", log_path=tmp_path / "log")
        until(lambda one=process: not one.is_running())  # type: ignore[misc]  # bound for this round
        assert process.last_output == f"{word}\n"
    assert (tmp_path / "log").read_text() == "first\nsecond\n"
