"""What commands have in common: where the configuration is, answers for people and for programs, failures."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from service.config.source import ConfigError, locate
from service.core.errors import GatewayError

Command = Callable[..., None]


def pass_locations(command: Command) -> Command:
    """Give `command` the `Locations` that --dev, --profile and the environment mean, as its first argument.

    Both options are understood before the command's name, too.
    """

    @click.option("--dev", is_flag=True, help="The configuration and state that `gateway --dev` uses.")
    @click.option("--profile", metavar="NAME", help="The configuration and state kept under this name.")
    @functools.wraps(command)
    def placed(*arguments: Any, dev: bool, profile: str | None, **options: Any) -> None:
        general = click.get_current_context().find_root().params
        place = locate(os.environ, dev=dev or bool(general.get("dev")), profile=profile or general.get("profile"))
        command(place, *arguments, **options)

    return report_errors(placed)


def report_errors(command: Command) -> Command:
    """Have what `command` can fail with end the program with status 1 and words; with --json told there, too."""

    @functools.wraps(command)
    def told(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except (ConfigError, GatewayError, click.ClickException) as error:
            failure = error if isinstance(error, click.ClickException) else click.ClickException(str(error))
            if options.get("as_json"):
                print_json({"ok": False, "error": {"type": "cli_error", "message": failure.format_message()}})
            raise failure from None

    return told


def json_option(command: Command) -> Command:
    """Give `command` the flag --json as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")(command)


def print_json(value: Any) -> None:
    """Tell a program."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Tell people, in columns; the headings are bold on a terminal."""
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for index, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(click.style(text, bold=True) if index == 0 else text)


def note(text: str) -> None:
    """Say something beside the answer."""
    click.echo(f"Note: {text}", err=True)
