"""A live gateway: the installed program as a process on a loopback port, with its own state directory."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil

from support.conformance import Conformance
from support.preloaded import Program, start

TOKEN = "a-token-for-tests"
START_SECONDS = 240

_LISTENING = re.compile(r"listening on (http://\S+)")


@dataclass(frozen=True)
class LiveGateway:
    """A running gateway: where it is, its process, what it has printed so far."""

    url: str
    process: subprocess.Popen[bytes] | Program
    output_path: Path
    state_dir: Path

    @property
    def output(self) -> str:
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    @property
    def directory(self) -> Path:
        """The home directory of its user."""
        return self.output_path.parent

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def client(self, token: str | None = TOKEN, **options: Any) -> httpx.Client:
        """A client whose every answer is held against the contract."""
        conformance = _conformance()

        def check(response: httpx.Response) -> None:
            response.read()
            conformance.check(response)

        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        options.setdefault("timeout", 30)
        hooks = {"response": [check]}
        return httpx.Client(base_url=self.url, headers=headers, event_hooks=hooks, verify=_trust(), **options)

    def stop(self, with_signal: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Ask the process to end and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.process.wait(seconds)


@cache
def _conformance() -> Conformance:
    """The contract, read and compiled once: it costs more than most requests."""
    return Conformance()


@cache
def _trust() -> ssl.SSLContext:
    """Return a shared SSL context: loading the certificates for each client takes longer than most requests."""
    return httpx.create_ssl_context()


def is_model_server(process: psutil.Process) -> bool:
    """Return True for the embedded model's server itself, not for its launcher."""
    try:
        command = process.cmdline()
    except psutil.Error:  # it has just ended
        return False
    return "service.models.local.llama_server" in command and "service.core.processes.launcher" not in command


def scripted_config(**gateway: Any) -> dict[str, Any]:
    """A configuration whose agents are answered by the scripted provider: fast, and the same every time."""
    auth = {"mode": "token", "token": TOKEN, "rateLimit": {"exemptLoopback": True}}
    http = {"endpoints": {"chatCompletions": {"enabled": True}, "responses": {"enabled": True}}}
    return {
        "gateway": {"auth": auth, "http": http, **gateway},
        "agents": {
            "defaults": {"model": "scripted/echo"},
            "list": [{"id": "main", "default": True}, {"id": "beta", "instructions": "You are beta."}],
        },
        "models": {"providers": {"scripted": {"api": "scripted"}}},
    }


def stubbed_config(
    upstream_url: str,
    model: str | Mapping[str, Any] = "stub/ok",
    *,
    agents: Sequence[Any] = (),
    defaults: Mapping[str, Any] | None = None,
    providers: Mapping[str, Any] | None = None,
    retry: Mapping[str, Any] | None = None,
    **stub: Any,
) -> dict[str, Any]:
    """A configuration whose agents are answered by the stub at `upstream_url`, each model asked once.

    The provider "stub" speaks OpenAI's dialect and "claude" Anthropic's, both with the fields `stub`; `providers` are
    further ones. `agents` and `defaults` configure the agents.
    """
    provider = {"baseUrl": upstream_url, **stub}
    config = scripted_config()
    config["agents"] = {"defaults": {"model": model, **(defaults or {})}}
    if agents:
        config["agents"]["list"] = list(agents)
    claude = {**provider, "api": "anthropic-messages"}
    config["models"] = {
        "retry": retry or {"attempts": 1},
        "providers": {"stub": provider, "claude": claude, **(providers or {})},
    }
    return config


@contextmanager
def live_gateway(
    directory: Path,
    config: Mapping[str, Any],
    *,
    arguments: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> Iterator[LiveGateway]:
    """Start the gateway with `config`; it is stopped, or killed if it will not stop, at the end of the block.

    `before` is a command that runs it: a debugger, a profiler.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "openclaw.json").write_bytes(orjson.dumps(config))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")},
        "HOME": str(directory),
        "OPENCLAW_CONFIG_PATH": str(directory / "openclaw.json"),
        "OPENCLAW_STATE_DIR": str(directory / "state"),
        **(env or {}),
    }
    output_path = directory / "output.txt"
    command = ["gateway", "--port", "0", *arguments]
    with output_path.open("wb") as output, Path(os.devnull).open("rb") as stdin:
        process: subprocess.Popen[bytes] | Program
        if before:
            command = [*before, sys.executable, "-m", "service", *command]
            process = subprocess.Popen(
                command, cwd=directory, env=environment, stdin=stdin, stdout=output, stderr=output
            )
        else:
            process = start(command, directory, environment, stdin.fileno(), output.fileno(), output.fileno())
    try:
        yield LiveGateway(_wait_until_listening(process, output_path), process, output_path, directory / "state")
    finally:
        if process.poll() is None:
            _stop(process)


def _stop(process: subprocess.Popen[bytes] | Program) -> None:
    """Stop a gateway; the second signal aborts the runs that a test has left behind."""
    for seconds in (1.5, 20):
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
    process.kill()
    process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes] | Program, output_path: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        output = output_path.read_text(encoding="utf-8", errors="replace")
        found = _LISTENING.search(output)
        if found:
            return found[1]
        if process.poll() is not None:
            raise RuntimeError(f"the gateway ended with status {process.returncode}:\n{output}")
        time.sleep(0.02)
    raise RuntimeError(f"the gateway did not start within {START_SECONDS} s:\n{output_path.read_text()}")
