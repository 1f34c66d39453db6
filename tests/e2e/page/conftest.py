"""One gateway and one browser for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.page_stage import Stage, open_stage
from support.upstream import Upstream


@pytest.fixture(scope="module")
def stage(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(module_upstream, tmp_path_factory.mktemp("page")) as opened:
        yield opened
