"""Run `openclaw` in a separate process with a private home directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.preloaded import run

#: Variables of the test environment that must not reach a command.
_FOREIGN = ("OPENCLAW_", "OLLAMA_")


@dataclass(frozen=True)
class Done:
    """Result of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Home:
    """A home directory with OpenClaw's default locations."""

    directory: Path
    env: Mapping[str, str]

    @property
    def config_path(self) -> Path:
        return self.directory / ".openclaw" / "openclaw.json"

    def write(self, config: Any) -> None:
        self.config_path.parent.mkdir(mode=0o700, exist_ok=True)
        self.config_path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
        self.config_path.chmod(0o600)

    def environment(self, **more: str) -> dict[str, str]:
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_FOREIGN) and not name.endswith("_API_KEY")
        }
        return {**own, "HOME": str(self.directory), **self.env, **more}

    def run(self, *arguments: str, text: str = "", **env: str) -> Done:
        """Run `openclaw` with `arguments` to completion, with `text` on standard input."""
        done = run(arguments, cwd=self.directory, env=self.environment(**env), text=text)
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)
