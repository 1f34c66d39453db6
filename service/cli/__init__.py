"""The command line: one module per group of commands, which only translate.

A command imports its own module; help and completion import all of them, so heavy imports are inside the commands. A
command that runs agents patches the standard library before them.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import click

from service import __version__
from service.cli.shared.common import CommandGroup, dev_option, profile_option
from service.cli.shared.examples import add_examples

INTERRUPTED = 130  # the shell's status for SIGINT


#: Errors of writing to a pipe or device; unlike errors of files they come without a name.
_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)


_COMMANDS = (
    *("agent", "agents", "approvals", "backup", "chat", "completion", "config", "doctor", "gateway", "health", "keys"),
    *("logs", "mcp", "mock", "models", "restore", "runs", "sessions", "setup", "status", "usage"),
)
#: The modules of commands that share one; the others have the name of their command.
_SHARED_MODULES = {"restore": "backup", "status": "health"}


class _Commands(CommandGroup):
    """The root group, which imports a command when it is needed; Ctrl-C exits with status 130."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, `None` if there is none of this name."""
        if cmd_name not in _COMMANDS:
            self.load_all()  # an error suggests a similar name
        elif cmd_name not in self.commands:
            self._load(cmd_name)
        return super().get_command(ctx, cmd_name)

    def load_all(self) -> Mapping[str, click.Command]:
        """Import all commands, and return them by name."""
        for name in _COMMANDS:
            if name not in self.commands:
                self._load(name)
        return self.commands

    def _load(self, name: str) -> None:
        command: click.Command = getattr(import_module(f"service.cli.{_SHARED_MODULES.get(name, name)}"), name)
        add_examples(command, name)
        self.add_command(command)

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
        if isinstance(error, BrokenPipeError):  # its reader has what it wanted, such as `head`
            raise click.exceptions.Exit(1) from None
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


add_examples(openclaw)
