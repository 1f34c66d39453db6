"""Local model servers: started on demand, stopped with the gateway.

Concurrent requests share one start; a program is never stopped while it is in use. Among the processes with the same
`Share`, one runs the program and the others use it.
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
from service.models.embeddings import EmbeddingProvider, EmbeddingRequest, Embeddings, no_embeddings
from service.models.http.transport import Upstream
from service.models.local.shared_server import Endpoint, Share, Unshared, wait_for_stop
from service.models.provider import ModelEnded, ModelRequest, Provider, TextReceiver

logger = logging.getLogger("openclaw.models")

_POLL_SECONDS = 0.02
_MAX_POLL_SECONDS = 0.5
_WATCH_SECONDS = 1.0
_HEALTH_TIMEOUT_SECONDS = 5.0
_MAX_HEALTH_BYTES = 64 * 1024
_LAST_LINE_CHARS = 200
_OTHERS_SECONDS = 30.0  # grace for other processes when the one that runs the program ends


class LocalService:
    """A program that serves models while it is needed.

    `command` is a path or a name in PATH; `env` is added to the gateway's environment. The program is ready when a GET
    of `health_url` succeeds or asks for credentials. It is stopped after `idle_stop_seconds` without a user, 0 for
    never. Its output goes to `log_path`, truncated at about 1 MiB (a temporary file by default). `report` gets a line
    with `name` for each start and stop. Its standard input is a pipe that ends with the gateway. Other processes with
    the same `share` may run it instead; `endpoint` is published to them besides the address.
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
        report: Callable[[str], None] = logger.info,
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
        self._report = report
        self._clock = clock
        self._share = share or Unshared()
        self._endpoint = {"address": _address_of(health_url), **(endpoint or {})}
        self._users = 0
        self._idle_since = clock()
        self._start: _Start | None = None  # in progress
        self._process: ChildProcess | None = None  # started, perhaps not ready yet
        self._transition = concurrency.RLock()  # one start or stop at a time
        self._closed = False

    @classmethod
    def from_config(cls, config: LocalServiceConfig, base_url: str | None, share: Share | None = None) -> Self:
        """Create the service of a `localService`; its health URL is `base_url` + `/models` by default."""
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
        """Keep the program running during the block, which gets its endpoint.

        Raises `GatewayError` with `provider_unavailable` when it does not start or is not ready in time, and
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
        """Stop the program and its children: SIGTERM, and after 5 s SIGKILL. Idempotent.

        Other processes have 30 s to finish their requests to it and cannot start new ones.
        """
        self._closed = True
        if self._process is not None:
            self._share.withdraw()
            wait_for_stop(self._share, _OTHERS_SECONDS)
            self._process.stop()
        with self._transition:  # a start in progress sees `_closed`
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
            # In a greenlet of its own: the caller may leave while others still wait.
            concurrency.spawn(self._run_start, self._start)
        problem = self._start.wait()
        self._check_open()
        if problem:
            raise GatewayError("provider_unavailable", problem)

    def _run_start(self, start: _Start) -> None:
        problem = f"The model server {self._name} could not be started. The gateway's log has the details."
        try:
            with self._transition:
                problem = self._launch_unless_served()
        except Exception:  # those who wait get an error in any case
            logger.exception("Starting the model server %s failed", self._name)
        finally:
            self._start = None
            start.end(problem)

    def _launch_unless_served(self) -> str:
        """Make the program ready, here or in another process; return the problem, empty for none."""
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
        """Start the program and wait until it is ready; return the problem, empty for none."""
        path = shutil.which(self._command[0])
        if path is None:
            return f"The model server {self._command[0]} is not an executable file. Correct localService.command."
        self._report(f"starting {self._name} ...")
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
        self._report(f"{self._name} is ready after {self._clock() - began:.1f} s")
        concurrency.spawn(self._watch, process)
        return ""

    def _poll_health(self, process: ChildProcess, give_up_at: float) -> str:
        """Wait until the program answers; return the problem, empty for none."""
        timeout = _HEALTH_TIMEOUT_SECONDS
        health = Upstream(self._health_url, connect_timeout_seconds=timeout, read_timeout_seconds=timeout)
        pause = _POLL_SECONDS
        try:
            while not self._closed:
                if (ending := process.ending()) is not None:
                    return f"The model server {self._name} {ending} before it was ready{_last_line(process)}"
                if _is_healthy(health):
                    return ""
                if self._clock() >= give_up_at:
                    seconds = self._ready_timeout_seconds
                    return f"The model server {self._name} was not ready within {seconds:g} s{_last_line(process)}"
                concurrency.sleep(pause)
                pause = min(pause * 1.5, _MAX_POLL_SECONDS)
            return "The gateway is shutting down."
        finally:
            health.close()

    def _watch(self, process: ChildProcess) -> None:
        """Truncate the log, stop the program when it is idle and report its exit, for as long as it runs."""
        idle_stop = self._idle_stop_seconds
        while process.is_running():
            concurrency.sleep(min(_WATCH_SECONDS, idle_stop / 4) if idle_stop else _WATCH_SECONDS)
            process.trim_log()
            if self._share.was_used():
                self._idle_since = self._clock()
            if idle_stop and self._is_idle():
                with self._transition:
                    # Unless a request came during another start or stop.
                    if self._is_idle() and self._process is process and self._share.begin_stop():
                        self._process = None  # the next request waits for a new start, which waits for this stop
                        process.stop()
                        self._share.release()
                        self._report(f"{self._name} stopped: not needed for {idle_stop:g} s")
        if not process.stopped:
            self._report(f"{self._name} {process.ending()}; the next request starts it again")
        with self._transition:
            if self._process is process:
                self._process = None
                self._share.release()

    def _is_idle(self) -> bool:
        return not self._users and self._clock() - self._idle_since >= self._idle_stop_seconds


class LocalServiceProvider:
    """A provider whose server is a `LocalService`, running whenever a request needs it."""

    def __init__(self, provider: Provider, service: LocalService) -> None:
        self._provider = provider
        self._service = service

    def ask(self, request: ModelRequest, on_text: TextReceiver) -> ModelEnded:
        """Start the server if necessary and ask the model; see `Provider.ask` for the contract."""
        with self._service.in_use():
            return self._provider.ask(request, on_text)

    def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Start the server if necessary and make embeddings; see `EmbeddingProvider`."""
        if not isinstance(self._provider, EmbeddingProvider):
            raise no_embeddings(request.model)
        with self._service.in_use():
            return self._provider.embed(request)

    def close(self) -> None:
        """Close the connections and stop the server."""
        self._provider.close()
        self._service.close()


class _Start:
    """A start in progress and its waiters."""

    def __init__(self) -> None:
        self._ended = concurrency.Event()
        self._problem = ""

    def end(self, problem: str) -> None:
        """Set the outcome: the problem, empty for success."""
        self._problem = problem
        self._ended.set()

    def wait(self) -> str:
        """Wait for the outcome and return the problem, empty for success."""
        self._ended.wait()
        return self._problem


def _address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_healthy(health: Upstream) -> bool:
    try:
        with health.get("") as response:
            response.read_all(_MAX_HEALTH_BYTES)
            return response.status < 400 or response.status in (401, 403)  # noqa: PLR2004 - it answers
    except GatewayError:
        return False


def _last_line(process: ChildProcess) -> str:
    """Return the last line that the program printed, as the end of a sentence."""
    lines = process.last_output.split("\n")
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    shown = "".join(character for character in line if character.isprintable())[:_LAST_LINE_CHARS]
    return f": {shown}" if shown else "."
