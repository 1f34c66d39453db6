"""The command line: one module per group of commands, which only translate.

All modules are imported whenever any command runs, so heavy imports are inside the commands. A command that runs agents
patches the standard library before them.
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

INTERRUPTED = 130  # the shell's status for SIGINT


class _Commands(click.Group):
    """The root group; Ctrl-C exits with status 130."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the named command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except click.Abort as abort:  # raised by click for Ctrl-C and for end of input at a prompt
            if not isinstance(abort.__context__, KeyboardInterrupt):
                raise
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dev", is_flag=True, help="Use the configuration and state of `gateway --dev`.")
@click.option("--profile", metavar="NAME", help="Use the configuration and state of this name.")
@click.version_option(__version__, prog_name="openclaw")
def openclaw(**_options: object) -> None:
    """Agents behind an OpenAI-compatible endpoint."""


for _command in (gateway, agent, agents, completion, config, health, models, sessions, setup, status):
    openclaw.add_command(_command)
