"""`openclaw gateway`: run the gateway."""

from __future__ import annotations

import click

from service.cli.shared.common import pass_locations
from service.config.source import Locations
from service.server.monkey_patch import make_cooperative

_MAX_PORT = 65_535
_MAX_WORKERS = 64
_MAX_GRACE_SECONDS = 86_400


@click.command()
@click.option("--port", type=click.IntRange(0, _MAX_PORT), help="Port to listen on; 0 picks a free one.")
@click.option("--bind", type=click.Choice(["loopback", "lan", "auto", "custom"]), help="Addresses to listen on.")
@click.option("--workers", type=click.IntRange(1, _MAX_WORKERS), default=1, help="Number of worker processes.")
@click.option(
    "--grace",
    type=click.FloatRange(0, _MAX_GRACE_SECONDS),
    metavar="SECONDS",
    default=30.0,
    help="Seconds that running answers get at shutdown; default 30.",
)
@pass_locations
def gateway(locations: Locations, port: int | None, bind: str | None, workers: int, grace: float) -> None:
    """Run the gateway until Ctrl-C or SIGTERM, following edits of the configuration file."""
    make_cooperative()
    from service.cli.shared.serve import serve

    serve(locations, port, bind, workers=workers, grace_seconds=grace)
