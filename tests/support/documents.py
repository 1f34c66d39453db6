"""Documents of the project and the fenced code blocks in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.live import TOKEN, LiveGateway

ROOT = Path(__file__).parents[2]
DOCUMENTS = (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*.md")))

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
#: The libraries that the tests of the documents have; `tests/clients` and `tests/interop` run what needs others.
_FOREIGN = re.compile(r"^(?:from|import) (?!os|sys|json|datetime|uuid|openai\b)", re.MULTILINE)
_GATEWAY = re.compile(r"127\.0\.0\.1:(?:18789|19001)")


@dataclass(frozen=True)
class Block:
    """A fenced block: the document and line it starts at, its language, its text."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def calls_gateway(self) -> bool:
        """Return True if the block contains the address of a gateway."""
        return _GATEWAY.search(self.text) is not None

    @property
    def needs_more_libraries(self) -> bool:
        """Return True if a Python program imports more than the standard library and OpenAI's SDK."""
        return _FOREIGN.search(self.text) is not None

    def at(self, address: tuple[str, int]) -> str:
        """Return its text with `address` in place of the documented one."""
        return at_address(self.text, address)


def at_address(text: str, address: tuple[str, int]) -> str:
    """Return `text` with `address` in place of the documented addresses of a gateway."""
    return _GATEWAY.sub(f"{address[0]}:{address[1]}", text)


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of all documents in these languages."""
    return [block for path in DOCUMENTS for block in blocks_of(path) if block.language in languages]


def blocks_of(path: Path) -> Iterator[Block]:
    """Yield the blocks of one document."""
    text = path.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        yield Block(path, text.count("\n", 0, match.start()) + 1, match["language"], match["text"])


def without_blocks(path: Path) -> str:
    """Return the text of one document outside of its blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def reader_environment(gateway: LiveGateway) -> dict[str, str]:
    """Return what a reader who runs `gateway` has in the environment, the tested `openclaw` first in PATH."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(gateway.directory),
        "OPENCLAW_CONFIG_PATH": str(gateway.directory / "openclaw.json"),
        "OPENCLAW_STATE_DIR": str(gateway.state_dir),
        "OPENCLAW_GATEWAY_PORT": str(gateway.address[1]),
        "OPENCLAW_GATEWAY_TOKEN": TOKEN,
        "BASE_URL": f"{gateway.url}/v1",
    }


def succeed(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> str:
    """Run a command that has to succeed and return its standard output."""
    ended = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def succeed_in_shell(script: str, environment: Mapping[str, str], directory: Path) -> str:
    """Run a script, each command of which has to succeed, and return its standard output."""
    return succeed(["bash", "-euo", "pipefail", "-c", script], environment, directory)
