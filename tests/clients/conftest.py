"""The client packages, each built once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from support.client_packages import build_package


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that returns the package of a language."""

    @cache
    def build_once(language: str) -> Path:
        return build_package(language, tmp_path_factory.mktemp("packages") / language)

    return build_once
