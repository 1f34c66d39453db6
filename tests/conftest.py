"""Shared fixtures: a live gateway with the scripted provider, contract-checking clients, an upstream stub."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator

import httpx
import hypothesis
import pytest
from support.clock import Clock
from support.live import LiveGateway, live_gateway, scripted_config
from support.upstream import Upstream

pytest_plugins = ["support.databases"]


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A live gateway whose agents are answered by the scripted provider."""
    with live_gateway(tmp_path_factory.mktemp("gateway"), scripted_config()) as running:
        yield running


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A stub of a model provider, for one test."""
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def module_upstream() -> Iterator[Upstream]:
    """A stub of a model provider, for a gateway that all tests of a module share."""
    with Upstream() as running:
        yield running


@pytest.fixture
def session() -> dict[str, str]:
    """The header that names a session which no other test has."""
    return {"x-openclaw-session-key": uuid.uuid4().hex}


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    """A client of `gateway`, authenticated, whose every answer is held against the contract."""
    with gateway.client() as connected:
        yield connected


@pytest.fixture
def clock() -> Clock:
    """A clock that goes when it is told to."""
    return Clock()


def pytest_configure() -> None:
    # Examples have no time limit: on a busy machine any of them may take a second.
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
    # Shells have what they start in the background ignore SIGINT, and so would every process that a test interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="try as hard as the environments made for it do")
    parser.addoption("--seed", type=int, help="where chance begins")
