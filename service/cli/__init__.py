"""The command line: one module for each group of commands. Commands only translate; what they do lives elsewhere.

A command's module is imported whenever any command runs, so it imports nothing that is heavy: what a command needs, it
imports when it runs. One that runs agents makes the standard library cooperative before that.
"""

from __future__ import annotations

from typing import Any

import click

from service import __version__
from service.cli.agent import agent
from service.cli.agents import agents
from service.cli.completion import completion
from service.cli.config import config
from service.cli.gateway import gateway
from service.cli.health import health, status
from service.cli.models import models
from service.cli.sessions import sessions
from service.cli.setup import setup

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


class _Commands(click.Group):
    """The commands, ended by Ctrl-C with the status that says so."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except click.Abort as abort:  # which is what click makes of Ctrl-C, and of the end of input, at a question
            if not isinstance(abort.__context__, KeyboardInterrupt):
                raise
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dev", is_flag=True, help="The configuration and state that `gateway --dev` uses.")
@click.option("--profile", metavar="NAME", help="The configuration and state kept under this name.")
@click.version_option(__version__, prog_name="openclaw")
def openclaw(**_place: object) -> None:
    """Agents behind an OpenAI-compatible endpoint."""


for _command in (gateway, agent, agents, completion, config, health, models, sessions, setup, status):
    openclaw.add_command(_command)
