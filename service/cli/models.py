"""`openclaw models`: the models this machine has."""

from __future__ import annotations

import click

from service.errors import GatewayError
from service.weights import install_embedded_model


@click.group()
def models() -> None:
    """Manage the models on this machine."""


@models.command()
def install() -> None:
    """Install the embedded demo model: its runtime and its weights. What is there already is left alone."""
    try:
        install_embedded_model(click.echo)
    except GatewayError as error:
        raise click.ClickException(error.message) from None
    click.echo("The embedded model is installed. It is a demo model: quick, small, often wrong.")
