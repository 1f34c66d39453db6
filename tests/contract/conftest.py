"""The options of the contract tests: how many examples, and with which seed."""

from __future__ import annotations

import secrets

import pytest

SEED = 20_260_901
EXAMPLES = 600


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contract")
    group.addoption("--examples", type=int, default=EXAMPLES, help=f"Examples for each operation ({EXAMPLES}).")
    group.addoption("--seed", type=int, default=SEED, help=f"The seed of what is generated ({SEED}).")
    group.addoption("--random-seed", action="store_true", help="Take a seed by chance, and print it.")


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The seed of every run."""
    if pytestconfig.getoption("--random-seed"):
        return secrets.randbits(32)
    given: int = pytestconfig.getoption("--seed")
    return given
