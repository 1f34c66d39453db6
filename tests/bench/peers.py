"""Other gateways, each in an environment of its own that is created on first use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Server, free_port, started
from support.live import TOKEN

ENVIRONMENTS = Path(__file__).parents[2] / ".tox"

_LITELLM_CONFIG = """\
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{upstream}/v1", api_key: unused}}
general_settings: {{master_key: {token}}}
litellm_settings: {{telemetry: false}}
"""


@contextmanager
def litellm(directory: Path, upstream_port: int) -> Iterator[Server]:
    """Start LiteLLM's proxy with one process, as its manual says."""
    home = _environment("litellm", "litellm[proxy]")
    config, port = directory / "litellm.yaml", free_port()
    config.write_text(_LITELLM_CONFIG.format(upstream=upstream_port, token=TOKEN))
    command = [str(home / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with started("litellm", command, port, measured=True) as server:
        yield server


@contextmanager
def portkey(_: Path, upstream_port: int) -> Iterator[Server]:
    """Start Portkey's gateway from npm: a relay of one Node process that neither stores nor validates."""
    home, port = ENVIRONMENTS / "peer-portkey", free_port()
    program = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        options = ("--no-audit", "--no-fund", "--ignore-scripts")
        subprocess.run(["npm", "install", "--prefix", str(home), *options, "@portkey-ai/gateway@1.15.2"], check=True)
    host = f"http://127.0.0.1:{upstream_port}/v1"
    own = {"x-portkey-provider": "openai", "x-portkey-custom-host": host}
    command = ["node", str(program), "--headless", f"--port={port}"]
    with started("portkey", command, port, measured=True, own_headers=own) as server:
        yield server


def _environment(name: str, requirement: str) -> Path:
    home = ENVIRONMENTS / f"peer-{name}"
    if not (home / "bin" / name).exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "--quiet", requirement], check=True)
    return home


PEERS = {"litellm": litellm, "portkey": portkey}
