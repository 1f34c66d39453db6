"""Options of the contract tests (examples, seed) and the table printed at the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from support.live import LiveGateway, live_gateway

from contract.seeds import contract_config

SEED = 20_260_901
#: Schemathesis takes 100; `tox -e contract-random` takes ten times as many.
EXAMPLES = 120
TABLE = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contract")
    group.addoption("--examples", type=int, default=EXAMPLES, help=f"Examples for each operation ({EXAMPLES}).")
    group.addoption("--random-seed", action="store_true", help="Use a random seed, and print it.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[TABLE]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A live gateway with an agent that asks for approvals."""
    with live_gateway(tmp_path_factory.mktemp("gateway"), contract_config()) as running:
        yield running


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Lines passed to this are printed after all tests."""
    return pytestconfig.stash[TABLE].append


@pytest.fixture(scope="session")
def examples(pytestconfig: pytest.Config) -> int:
    """The number of examples for each operation."""
    count: int = pytestconfig.getoption("--examples", EXAMPLES)
    return count


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config, table: Callable[[str], None]) -> int:
    """The seed of every run; `--seed` repeats a run."""
    taken = pytestconfig.getoption("--seed", None) or SEED
    if pytestconfig.getoption("--random-seed", default=False):
        taken = secrets.randbits(32)
    table(f"seed {taken}")
    return int(taken)
