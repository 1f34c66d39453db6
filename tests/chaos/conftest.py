"""Fixtures of the chaos tests: databases and test length."""

from __future__ import annotations

import os
import random

import pytest
from support.databases import database_url, postgres

__all__ = ["database_url", "postgres"]


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    """Return True to run at the length of `tox -e chaos`."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture
def chance(pytestconfig: pytest.Config) -> random.Random:
    """Random source of the moments; the seed is printed for repetition."""
    seed = pytestconfig.getoption("--seed") or int.from_bytes(os.urandom(4))
    print(f"--seed={seed}")  # shown with a failure
    return random.Random(seed)
