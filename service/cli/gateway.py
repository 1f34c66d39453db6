"""`openclaw gateway`: serve."""

from __future__ import annotations

import click

from service.cli.common import with_place
from service.configtext import Locations
from service.cooperative import make_cooperative


@click.command()
@click.option("--port", type=int, help="Port to listen on; 0 takes any free one.")
@click.option("--bind", help='"loopback", "lan", "auto" or "custom".')
@with_place
def gateway(locations: Locations, port: int | None, bind: str | None) -> None:
    """Serve agents over HTTP until Ctrl-C or SIGTERM."""
    make_cooperative()
    from service.cli.serve import serve

    serve(locations, port, bind)
