"""The stub of a model provider, shared by the tests of a module and reset for each."""

from __future__ import annotations

import pytest
from support.upstream import Upstream


@pytest.fixture
def upstream(module_upstream: Upstream) -> Upstream:
    """The module's stub without requests and answers of other tests."""
    module_upstream.forget()
    return module_upstream
