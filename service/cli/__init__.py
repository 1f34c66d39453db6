"""The command line: one module for each group of commands. Commands only translate; what they do lives elsewhere."""

from __future__ import annotations

import click

from service import __version__
from service.cli.gateway import gateway
from service.cli.models import models
from service.cli.sessions import sessions


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="openclaw")
def openclaw() -> None:
    """Agents behind an OpenAI-compatible endpoint."""


openclaw.add_command(gateway)
openclaw.add_command(models)
openclaw.add_command(sessions)
