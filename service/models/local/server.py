"""A model server on this machine, started when it is first needed and gone when the gateway is.

One start serves everybody who waits for it; the program is never stopped while it is in use. Of the processes that
have a `Share` of it, one runs it and the others use it.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from service.config.models import LocalServiceConfig
from service.core import concurrency
from service.core.errors import GatewayError
from service.core.processes.child import ChildProcess
from service.models.http.transport import Upstream
from service.models.local.sharing import Endpoint, Share, Unshared, wait_for_stop
from service.models.provider import ModelEvent, ModelRequest, Provider

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.02
_MAX_POLL_SECONDS = 0.5
_WATCH_SECONDS = 1.0
_HEALTH_TIMEOUT_SECONDS = 5.0
_MAX_HEALTH_BYTES = 64 * 1024
_GIST_CHARS = 200
_OTHERS_SECONDS = 30.0  # how long a process that ends lets others finish with the program it runs


class LocalService:
    """A program that serves models, its life tied to need.

    `command` is a path, or a name that PATH finds; `env` is added to the gateway's environment. The program is ready
    when a GET of `health_url` answers with success, or asks for credentials. It is stopped after `idle_stop_seconds`
    without a user, 0 for never. What it prints goes to `log_path`, cut at about 1 MiB (a temporary file by default).
    `tell` gets a line for people about each start and stop, which calls it `name`. Its standard input is a pipe that
    ends with the gateway. Other processes with the same `share` may run it instead; `endpoint` tells them how to reach
    the one that this process runs, beside where it listens.
    """

    def __init__(
        self,
        command: str,
        args: Sequence[str] = (),
        *,
        health_url: str,
        name: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        ready_timeout_seconds: float = 120.0,
        idle_stop_seconds: float = 0.0,
        log_path: Path | None = None,
        tell: Callable[[str], None] = logger.info,
        clock: Callable[[], float] = time.monotonic,
        share: Share | None = None,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._command = (command, *args)
        self._name = name or Path(command).name
        self._health_url = health_url
        self._cwd = cwd
        self._env = {**os.environ, **(env or {})}
        self._ready_timeout_seconds = ready_timeout_seconds
        self._idle_stop_seconds = idle_stop_seconds
        self._log_path = log_path
        self._tell = tell
        self._clock = clock
        self._share = share or Unshared()
        self._endpoint = {"address": _address_of(health_url), **(endpoint or {})}
        self._users = 0
        self._idle_since = clock()
        self._start: _Start | None = None  # under way
        self._process: ChildProcess | None = None  # started, perhaps not ready yet
        self._turn = concurrency.RLock()  # one start or stop at a time
        self._closed = False

    @classmethod
    def from_config(cls, config: LocalServiceConfig, base_url: str | None, share: Share | None = None) -> Self:
        """The service a provider's `localService` describes, its health asked at `base_url` + `/models` by default."""
        return cls(
            config.command,
            config.args,
            health_url=config.health_url or f"{base_url}/models",
            cwd=config.cwd,
            env=config.env,
            ready_timeout_seconds=config.ready_timeout_ms / 1000,
            idle_stop_seconds=config.idle_stop_ms / 1000,
            share=share,
        )

    @contextmanager
    def in_use(self) -> Iterator[Endpoint]:
        """Have the program running and ready while the block runs, which gets how to reach it.

        Raises `GatewayError` with `provider_unavailable` when it does not start or does not get ready in time, and
        `shutting_down` once closed.
        """
        self._users += 1
        try:
            while not self._closed and not self._runs_here():
                with self._share.use():
                    found = self._share.find()
                    if found is not None:
                        yield found
                        return
                self._await_start()
                if self._process is not None:
                    break
            self._check_open()
            yield self._endpoint
        finally:
            self._users -= 1
            self._idle_since = self._clock()

    def close(self) -> None:
        """End the program and whatever it started: SIGTERM, and after 5 s SIGKILL. Twice is a no-op.

        Other processes that use it have half a minute to finish; no new ones begin.
        """
        self._closed = True
        if self._process is not None:
            self._share.withdraw()
            wait_for_stop(self._share, _OTHERS_SECONDS)
            self._process.stop()
        with self._turn:  # a start under way sees that it is no longer wanted
            self._process = None
            self._share.release()

    def _runs_here(self) -> bool:
        return self._start is None and self._process is not None and self._process.is_running()

    def _check_open(self) -> None:
        if self._closed:
            raise GatewayError("shutting_down", "The gateway is shutting down.")

    def _await_start(self) -> None:
        if self._start is None:
            self._start = _Start()
            # Beside the caller, who may leave while others still wait.
            concurrency.spawn(self._run_start, self._start)
        problem = self._start.wait()
        self._check_open()
        if problem:
            raise GatewayError("provider_unavailable", problem)

    def _run_start(self, start: _Start) -> None:
        problem = f"The model server {self._name} could not be started. The gateway's log has the details."
        try:
            with self._turn:
                problem = self._launch_unless_served()
        except Exception:  # whatever it was, those who wait have to be told
            logger.exception("Starting the model server %s failed", self._name)
        finally:
            self._start = None
            start.end(problem)

    def _launch_unless_served(self) -> str:
        """Have the program ready, here or in another process; returns what went wrong, or an empty text."""
        give_up_at = self._clock() + self._ready_timeout_seconds
        pause = _POLL_SECONDS
        while not self._closed and not self._share.claim():
            if self._share.find() is not None:
                return ""
            if self._clock() >= give_up_at:
                return f"The model server {self._name} was not ready within {self._ready_timeout_seconds:g} s."
            concurrency.sleep(pause)
            pause = min(pause * 1.5, _MAX_POLL_SECONDS)
        try:
            problem = self._launch()
            if not problem:
                self._share.publish(self._endpoint)
        finally:
            if self._process is None:
                self._share.release()
        return problem

    def _launch(self) -> str:
        """Start the program and wait until it is ready; returns what went wrong, or an empty text."""
        path = shutil.which(self._command[0])
        if path is None:
            return f"The model server {self._command[0]} is not an executable file."
        self._tell(f"starting {self._name} ...")
        began = self._clock()
        try:
            process = ChildProcess((path, *self._command[1:]), self._cwd, self._env, self._log_path)
        except OSError as error:
            return f"The model server {self._name} could not be started: {error.strerror}: {error.filename}."
        self._process = process
        problem = self._poll_health(process, began + self._ready_timeout_seconds)
        if problem:
            process.stop()
            self._process = None
            logger.warning("%s Its output ends with:\n%s", problem, process.last_output)
            return problem
        self._tell(f"{self._name} is ready after {self._clock() - began:.1f} s")
        concurrency.spawn(self._watch, process)
        return ""

    def _poll_health(self, process: ChildProcess, give_up_at: float) -> str:
        """Wait until the program answers; returns why it will not, or an empty text."""
        timeout = _HEALTH_TIMEOUT_SECONDS
        health = Upstream(self._health_url, connect_timeout_seconds=timeout, read_timeout_seconds=timeout)
        pause = _POLL_SECONDS
        try:
            while not self._closed:
                if (ending := process.ending()) is not None:
                    return f"The model server {self._name} {ending} before it was ready{_gist(process)}"
                if _is_healthy(health):
                    return ""
                if self._clock() >= give_up_at:
                    seconds = self._ready_timeout_seconds
                    return f"The model server {self._name} was not ready within {seconds:g} s{_gist(process)}"
                concurrency.sleep(pause)
                pause = min(pause * 1.5, _MAX_POLL_SECONDS)
            return "The gateway is shutting down."
        finally:
            health.close()

    def _watch(self, process: ChildProcess) -> None:
        """Keep the program's log short, stop it when it is idle and notice its death, for as long as it runs."""
        idle_stop = self._idle_stop_seconds
        while process.is_running():
            concurrency.sleep(min(_WATCH_SECONDS, idle_stop / 4) if idle_stop else _WATCH_SECONDS)
            process.trim_log()
            if self._share.was_used():
                self._idle_since = self._clock()
            if idle_stop and self._is_idle():
                with self._turn:
                    # Unless somebody came while another start or stop was under way.
                    if self._is_idle() and self._process is process and self._share.begin_stop():
                        self._process = None  # who comes now waits for a new start, which waits for this stop
                        process.stop()
                        self._share.release()
                        self._tell(f"{self._name} stopped: not needed for {idle_stop:g} s")
        if not process.stopped:
            self._tell(f"{self._name} {process.ending()}; the next request starts it again")
        with self._turn:
            if self._process is process:
                self._process = None
                self._share.release()

    def _is_idle(self) -> bool:
        return not self._users and self._clock() - self._idle_since >= self._idle_stop_seconds


class LocalServiceProvider:
    """A provider whose server is a `LocalService`: running whenever a request needs it."""

    def __init__(self, provider: Provider, service: LocalService) -> None:
        self._provider = provider
        self._service = service

    def stream(self, request: ModelRequest) -> Iterator[ModelEvent]:
        """Have the server ready, then ask the model; see `Provider.stream` for the contract."""
        with self._service.in_use():
            yield from self._provider.stream(request)

    def close(self) -> None:
        """Let go of the connections and end the server."""
        self._provider.close()
        self._service.close()


class _Start:
    """One start under way and those who wait for its outcome."""

    def __init__(self) -> None:
        self._ended = concurrency.Event()
        self._problem = ""

    def end(self, problem: str) -> None:
        """Tell everybody what went wrong; an empty text is success."""
        self._problem = problem
        self._ended.set()

    def wait(self) -> str:
        """Wait for the end and return what went wrong, or an empty text."""
        self._ended.wait()
        return self._problem


def _address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_healthy(health: Upstream) -> bool:
    try:
        with health.get("") as response:
            response.read_all(_MAX_HEALTH_BYTES)
            return response.status < 400 or response.status in (401, 403)  # noqa: PLR2004 - the statuses of success
    except GatewayError:
        return False


def _gist(process: ChildProcess) -> str:
    """The last line the program printed, as the end of a sentence."""
    lines = process.last_output.split("\n")
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    shown = "".join(character for character in line if character.isprintable())[:_GIST_CHARS]
    return f": {shown}" if shown else "."
