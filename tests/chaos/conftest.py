"""What tests of killed and shared gateways take: a database of each kind, and how hard they try."""

from __future__ import annotations

import os
import random

import pytest
from support.databases import database_url, postgres

__all__ = ["database_url", "postgres"]


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    """Whether to try as hard as `tox -e chaos` does."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture
def chance(pytestconfig: pytest.Config) -> random.Random:
    """Where the moments come from; printed, so that a run can be repeated."""
    seed = pytestconfig.getoption("--seed") or int.from_bytes(os.urandom(4))
    print(f"--seed={seed}")  # shown with a failure
    return random.Random(seed)
