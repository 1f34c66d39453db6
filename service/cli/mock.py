"""`openclaw mock`: a gateway with scripted models, to test what calls a gateway."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click
import orjson

from service.cli.shared.common import report_errors
from service.config.source import Locations
from service.core.errors import GatewayError
from service.server.monkey_patch import make_cooperative

_MAX_PORT = 65_535


@click.command()
@click.option("--port", type=click.IntRange(0, _MAX_PORT), default=0, help="Port to listen on; by default a free one.")
@click.option("--token", default="mock", show_default=True, help="Token that clients send.")
@click.option("--model", default="echo", show_default=True, metavar="NAME", help="Scripted model that answers.")
@report_errors
def mock(port: int, token: str, model: str) -> None:
    """Serve the whole contract with scripted models until Ctrl-C; nothing is kept."""
    make_cooperative()
    from service.cli.shared.serve import serve
    from service.models.scripted import check_name

    model = model.removeprefix("scripted/")
    try:
        check_name(model)
    except GatewayError as error:
        raise click.BadParameter(str(error), param_hint="--model") from None
    for name in [name for name in os.environ if name.startswith("OPENCLAW_")]:
        del os.environ[name]  # those of another gateway
    with tempfile.TemporaryDirectory(prefix="openclaw-mock-") as directory:
        locations = Locations(Path(directory, "openclaw.json"), Path(directory, "state"), dev=False)
        locations.config_path.write_bytes(orjson.dumps(_mock_config(token, model)))
        serve(locations, port, "loopback", workers=1, grace_seconds=0)


def _mock_config(token: str, model: str) -> dict[str, Any]:
    endpoints = ("chatCompletions", "responses", "embeddings", "tools", "metrics")
    return {
        "gateway": {
            "auth": {"mode": "token", "token": token, "rateLimit": {"exemptLoopback": True}},
            "http": {"endpoints": {name: {"enabled": True} for name in endpoints}},
        },
        "agents": {"defaults": {"model": f"scripted/{model}"}},
        "embeddings": {"model": "scripted/echo"},
        "models": {"providers": {"scripted": {"api": "scripted"}}, "retry": {"attempts": 1}},
    }
