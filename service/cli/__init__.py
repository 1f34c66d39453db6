"""The command line: one module per group of commands, which only translate.

All modules are imported whenever any command runs, so heavy imports are inside the commands. A command that runs agents
patches the standard library before them.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from service import __version__
from service.cli.agent import agent
from service.cli.agents import agents
from service.cli.approvals import approvals
from service.cli.backup import backup, restore
from service.cli.chat import chat
from service.cli.completion import completion
from service.cli.config import config
from service.cli.doctor import doctor
from service.cli.gateway import gateway
from service.cli.health import health, status
from service.cli.keys import keys
from service.cli.logs import logs
from service.cli.mcp import mcp
from service.cli.mock import mock
from service.cli.models import models
from service.cli.runs import runs
from service.cli.sessions import sessions
from service.cli.setup import setup
from service.cli.shared.common import CommandGroup, dev_option, profile_option
from service.cli.shared.examples import add_examples
from service.cli.usage import usage

INTERRUPTED = 130  # the shell's status for SIGINT


#: Errors of writing to a pipe or device; unlike errors of files they come without a name.
_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)


class _Commands(CommandGroup):
    """The root group; Ctrl-C exits with status 130."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parse the arguments, and print the help or the version if they ask for it.

        Without a terminal, or with NO_COLOR in the environment, nothing has colours.
        """
        if os.environ.get("NO_COLOR"):
            options.setdefault("color", False)
        with _output_errors_reported():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the named command."""
        try:
            with _output_errors_reported():
                result = super().invoke(ctx)
                if sys.stdout is not None:  # as it is where a program starts with its output closed
                    sys.stdout.flush()
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except click.Abort as abort:  # raised by click for Ctrl-C and for end of input at a prompt
            if not isinstance(abort.__context__, KeyboardInterrupt):
                raise
            raise click.exceptions.Exit(INTERRUPTED) from None
        return result


@contextmanager
def _output_errors_reported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
            raise
        _discard_output()
        raise click.ClickException(f"The output cannot be written: {error.strerror}.") from None


def _discard_output() -> None:
    """Discard what standard output has buffered, which the flush at exit would try to write again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@dev_option
@profile_option
@click.version_option(__version__, prog_name="openclaw")
def openclaw(**_options: object) -> None:
    """Agents behind an OpenAI-compatible endpoint."""


_COMMANDS = (
    *(gateway, agent, agents, approvals, backup, chat, completion, config, doctor, health, keys, logs, mcp, mock),
    *(models, restore, runs, sessions, setup, status, usage),
)
for _command in _COMMANDS:
    openclaw.add_command(_command)
add_examples(openclaw)
