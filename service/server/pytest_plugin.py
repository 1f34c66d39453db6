"""A pytest plugin with a fixture, `openclaw_mock`: a running `openclaw mock` for tests of what calls a gateway.

It imports nothing of the gateway, and is installed as `pytest_openclaw`: pytest loads it wherever the gateway is
installed, also for projects with a package `service` or `handlers` of their own.
"""

from __future__ import annotations

import collections
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

_LISTENING = re.compile(r"listening on (http://\S+)")
_STOP_SECONDS = 20


@dataclass(frozen=True)
class MockGateway:
    """A gateway with scripted models: its address, and the token that clients send."""

    url: str
    token: str

    @property
    def base_url(self) -> str:
        """The address for OpenAI's SDKs."""
        return f"{self.url}/v1"


@pytest.fixture(scope="session")
def openclaw_mock_arguments() -> tuple[str, ...]:
    """Arguments of `openclaw mock`; a test suite may have a fixture of its own with this name."""
    return ()


@pytest.fixture(scope="session")
def openclaw_mock(openclaw_mock_arguments: tuple[str, ...]) -> Iterator[MockGateway]:
    """A running mock gateway, which all tests share."""
    token = secrets.token_urlsafe(16)
    command = [sys.executable, "-m", "service", "mock", "--token", token, *openclaw_mock_arguments]
    output, error = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(command, env=_environment(), stdout=output, stderr=error, text=True) as process:
        try:
            yield MockGateway(_wait_until_listening(process), token)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _environment() -> dict[str, str]:
    """Return the environment without packages of the tested project, of which one may be called `service`, too."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONSAFEPATH": "1"}


def _wait_until_listening(process: subprocess.Popen[str]) -> str:
    """Return the gateway's address; what it prints later is read and dropped."""
    lines = process.stdout or ()
    printed = []
    for line in lines:
        printed.append(line)
        if found := _LISTENING.search(line):
            threading.Thread(target=collections.deque, args=(lines, 0), daemon=True).start()
            return found[1]
    raise RuntimeError(f"openclaw mock ended:\n{''.join(printed)}")
