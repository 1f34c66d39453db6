"""The npm packages that `tox -e interop-responses` installs, and a gateway for their programs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.documents import succeed
from support.live import TOKEN, LiveGateway


@dataclass(frozen=True)
class Clients:
    """Programs that use the Responses API: `node` runs those for Node."""

    directory: Path
    node: Path

    @property
    def modules(self) -> Path:
        return self.directory / "node_modules"

    def run(self, program: Path, gateway: LiveGateway, directory: Path) -> str:
        """Run a program for Node, and return what it prints."""
        (directory / "node_modules").symlink_to(self.modules)
        copy = directory / program.name
        copy.write_bytes(program.read_bytes())
        environment = {**os.environ, "BASE_URL": f"{gateway.url}/v1", "API_KEY": TOKEN}
        return succeed([str(self.node), str(copy)], environment, directory)


@pytest.fixture(scope="session")
def clients() -> Clients:
    directory, node = (Path(os.environ[f"OPENCLAW_INTEROP_{name}"]) for name in ("DIR", "NODE"))
    assert (directory / "node_modules" / "@openai" / "codex").exists()
    return Clients(directory, node)
