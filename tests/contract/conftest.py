"""The options of the contract tests: how many examples, with which seed; and the table they print at the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

SEED = 20_260_901
EXAMPLES = 300
TABLE = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contract")
    group.addoption("--examples", type=int, default=EXAMPLES, help=f"Examples for each operation ({EXAMPLES}).")
    group.addoption("--random-seed", action="store_true", help="Take a seed by chance, and print it.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[TABLE]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Lines given to this are printed when all tests are through."""
    return pytestconfig.stash[TABLE].append


@pytest.fixture(scope="session")
def examples(pytestconfig: pytest.Config) -> int:
    """How many examples are generated for each operation."""
    count: int = pytestconfig.getoption("--examples", EXAMPLES)
    return count


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config, table: Callable[[str], None]) -> int:
    """The seed of every run; `--seed` repeats a run with a seed taken by chance."""
    taken = pytestconfig.getoption("--seed", None) or SEED
    if pytestconfig.getoption("--random-seed", default=False):
        taken = secrets.randbits(32)
    table(f"seed {taken}")
    return int(taken)
