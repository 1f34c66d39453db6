"""`openclaw gateway`: serve."""

from __future__ import annotations

import click

from service.cli.common import pass_locations
from service.config.source import Locations
from service.server.monkey_patch import make_cooperative

_MOST_WORKERS = 64
_LONGEST_GRACE_SECONDS = 86_400


@click.command()
@click.option("--port", type=int, help="Port to listen on; 0 takes any free one.")
@click.option("--bind", help='"loopback", "lan", "auto" or "custom".')
@click.option("--workers", type=click.IntRange(1, _MOST_WORKERS), default=1, help="Processes that serve side by side.")
@click.option(
    "--grace",
    type=click.FloatRange(0, _LONGEST_GRACE_SECONDS),
    metavar="SECONDS",
    default=30.0,
    help="How long answers may go on once the gateway is told to stop; 30 if not given.",
)
@pass_locations
def gateway(locations: Locations, port: int | None, bind: str | None, workers: int, grace: float) -> None:
    """Serve agents over HTTP until Ctrl-C or SIGTERM, following edits of the configuration file."""
    make_cooperative()
    from service.cli.serve import serve

    serve(locations, port, bind, workers=workers, grace_seconds=grace)
