"""The npm packages that `tox -e interop` installs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Published:
    """OpenClaw's published programs: `node` runs them."""

    directory: Path
    node: Path

    @property
    def modules(self) -> Path:
        return self.directory / "node_modules"

    @property
    def program(self) -> Path:
        return self.modules / "openclaw" / "openclaw.mjs"

    @property
    def schema(self) -> Path:
        return self.modules / "@openclaw" / "gateway-protocol" / "protocol.schema.json"


@pytest.fixture(scope="session")
def published() -> Published:
    directory = Path(os.environ["OPENCLAW_INTEROP_DIR"])
    found = Published(directory, Path(os.environ["OPENCLAW_INTEROP_NODE"]))
    assert found.program.exists()
    assert found.node.exists()
    return found
