"""`openclaw models`: the models this machine has."""

from __future__ import annotations

import click

from service.cli.common import with_failures_told


@click.group()
def models() -> None:
    """Manage the models on this machine."""


@models.command()
@with_failures_told
def install() -> None:
    """Install the embedded demo model: its runtime and its weights. What is there already is left alone."""
    from service.weights import install_embedded_model

    install_embedded_model(click.echo)
    click.echo("The embedded model is installed. It is a demo model: quick, small, often wrong.")
