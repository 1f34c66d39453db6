"""Shared parts of commands: locations, output as text or JSON, error reporting."""

from __future__ import annotations

import functools
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any

import click

from service.config.source import PROFILE_NAME, ConfigError, locate
from service.core.errors import GatewayError

Command = Callable[..., None]

_NO_LIMIT = 10_000
_MAX_SECONDS = 10**9

#: What words of some languages, and emoji, are joined with, or kept from joining.
_JOINERS = "\u200c\u200d"


def _check_profile(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    if name is not None and not PROFILE_NAME.fullmatch(name):
        raise click.BadParameter(
            "use 1 to 64 letters, digits, hyphens and underscores, starting with a letter or digit."
        )
    return name


dev_option = click.option("--dev", is_flag=True, help="Use the configuration and state of `gateway --dev`.")
profile_option = click.option(
    "--profile", metavar="NAME", callback=_check_profile, help="Use the configuration and state of this name."
)


class CommandGroup(click.Group):
    """A group whose help has the whole summary of every command."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their summaries, over several lines where necessary."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(_NO_LIMIT)) for name, command in commands if command])


class Utf8Text(click.ParamType[str]):
    """A text argument. Bytes that are not UTF-8 are refused, or replaced by U+FFFD with `replace`."""

    name = "text"

    def __init__(self, *, replace: bool = False) -> None:
        self._replace = replace

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text without lone surrogates, which stand for undecodable bytes of an argument."""
        text = str(value)
        valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if valid != text and not self._replace:
            self.fail("it is not valid UTF-8.", param, ctx)
        return valid


class Seconds(click.FloatRange):
    """A positive number of seconds."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True, max=_MAX_SECONDS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; `nan` is in no range."""
        seconds: float = super().convert(value, param, ctx)
        if seconds != seconds:  # noqa: PLR0124 - nan
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return seconds


def pass_locations(command: Command) -> Command:
    """Pass `command` the `Locations` for --dev, --profile and the environment as its first argument.

    Both options are also accepted before the command's name.
    """

    @dev_option
    @profile_option
    @functools.wraps(command)
    def with_locations(*arguments: Any, dev: bool, profile: str | None, **options: Any) -> None:
        general = click.get_current_context().find_root().params
        dev, profile = dev or bool(general.get("dev")), profile or general.get("profile")
        if dev and profile is not None:
            raise click.UsageError("Use either --dev or --profile, not both.")
        locations = locate(os.environ, dev=dev, profile=profile)
        command(locations, *arguments, **options)

    return report_errors(with_locations)


def report_errors(command: Command) -> Command:
    """Exit with status 1 and a message when `command` fails; with --json also print the error as JSON."""

    @functools.wraps(command)
    def reporting(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except (ConfigError, GatewayError, click.ClickException) as error:
            failure = error if isinstance(error, click.ClickException) else click.ClickException(str(error))
            if options.get("as_json"):
                code = getattr(error, "code", None)
                details = {"type": "cli_error", "message": failure.format_message(), "code": code or None}
                print_json({"ok": False, "error": details})
            if isinstance(failure, click.UsageError):
                raise failure from None
            raise click.ClickException(printable(failure.format_message())) from None

    return reporting


def json_option(command: Command) -> Command:
    """Add the flag --json as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(value: Any) -> None:
    """Print `value` as JSON."""
    print_json_text(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_text(text: str) -> None:
    """Print what is JSON already; a terminal gets escapes, which mean the same, for what it would interpret."""
    click.echo(to_json_for_terminal(text) if is_terminal(sys.stdout) else text, color=True)


def to_json_for_terminal(text: str) -> str:
    """Escape the characters of JSON that a terminal would interpret, or not show."""
    return "".join(char if _is_harmless(char) else json.dumps(char)[1:-1] for char in text)


def print_text(text: str, *, nl: bool = True) -> None:
    """Print what a model says: as it is, except on a terminal, which gets no characters that it would interpret."""
    click.echo(_without_controls(text, _JOINERS) if is_terminal(sys.stdout) else text, nl=nl, color=True)


def is_terminal(file: IO[str] | None) -> bool:
    """Return whether `file` is a terminal; `None` is standard output that was closed."""
    return file is not None and file.isatty()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns without control characters; the headings are bold on a terminal."""
    lines = [tuple(headings), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for index, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(click.style(text, bold=True) if index == 0 else text)


def note(text: str) -> None:
    """Print a note on standard error."""
    click.echo(f"{click.style('Note:', fg='yellow')} {printable(text)}", err=True)


def printable(text: str) -> str:
    """Replace control characters, which a terminal would interpret, and others that are not seen."""
    return _without_controls(text)


def _without_controls(text: str, kept: str = "") -> str:
    return "".join(char if _is_harmless(char) or char in kept else "\ufffd" for char in text)


def _is_harmless(char: str) -> bool:
    # Unassigned ones are those of a newer Unicode, and private ones pictures of a font.
    return char.isprintable() or char in "\n\t" or unicodedata.category(char) in ("Zs", "Cn", "Co")
