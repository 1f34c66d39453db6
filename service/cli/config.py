"""`openclaw config`: read and change the configuration file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from service.cli.shared.common import CommandGroup, json_option, note, pass_locations, print_json
from service.config.key_paths import KeyPath, format_path, parse_path
from service.config.source import ConfigError, Locations, parse_json5, read_config_text

if TYPE_CHECKING:
    from service.config.loading import ValidationResult


class _Path(click.ParamType[KeyPath]):
    """A path of a configuration key."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> KeyPath:
        """Parse a path."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_path(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group(cls=CommandGroup)
def config() -> None:
    """Read and change the configuration file."""


@config.command()
@json_option
@pass_locations
def file(locations: Locations, *, as_json: bool) -> None:
    """Print the path of the file."""
    path = locations.config_path
    if as_json:
        print_json({"path": str(path), "exists": path.exists()})
    else:
        click.echo(path)


@config.command()
@click.argument("path", type=_Path(), required=False)
@json_option
@pass_locations
def get(locations: Locations, path: KeyPath | None, *, as_json: bool) -> None:
    """Print the file, or its value at PATH, such as gateway.port or agents.list[0].model.

    Secrets are masked unless PATH names them.
    """
    from service.config.json5.editing import get_value
    from service.config.secrets import mask_secrets

    data = parse_json5(read_config_text(locations), str(locations.config_path))
    try:
        found = get_value(data, path or ())
    except KeyError:
        raise click.ClickException(f"{format_path(path or ())} is not set in {locations.config_path}.") from None
    if path is None or isinstance(found, dict | list):
        keys = [step for step in path or () if isinstance(step, str) and not step.isdecimal()]
        found = mask_secrets(found, keys[-1] if keys else "")
    if isinstance(found, str) and not as_json:
        click.echo(found)
    else:
        print_json(found)


@config.command(name="set")
@click.argument("path", type=_Path())
@click.argument("value")
@click.option("--text", "as_text", is_flag=True, help="Take VALUE as a string whatever it looks like.")
@json_option
@pass_locations
def set_(locations: Locations, path: KeyPath, value: str, *, as_text: bool, as_json: bool) -> None:
    """Set PATH to VALUE: JSON5, or a string; `-` reads standard input.

    Comments and layout are kept. A file that would be invalid is not written.
    """
    from service.config.json5.editing import set_value

    text = sys.stdin.read().removesuffix("\n") if value == "-" else value
    parsed = text if as_text else _parse_value(text)
    _edit(locations, lambda before: set_value(before, path, parsed))
    _print_edit(locations, path, "Set", as_json=as_json)


@config.command()
@click.argument("path", type=_Path())
@json_option
@pass_locations
def unset(locations: Locations, path: KeyPath, *, as_json: bool) -> None:
    """Remove PATH from the file and return to its default."""
    from service.config.json5.editing import remove_value

    _edit(locations, lambda before: remove_value(before, path))
    _print_edit(locations, path, "Removed", as_json=as_json)


@config.command()
@json_option
@pass_locations
def validate(locations: Locations, *, as_json: bool) -> None:
    """Check whether the gateway can start with the file; status 1 if not.

    A file for a gateway on another host is checked, too.
    """
    from service.api.auth import resolve_credentials
    from service.cli.shared.weak_setups import list_weak_setups
    from service.config.loading import load_config, resolve_bind, resolve_port
    from service.gateway.startup_checks import check_startable

    path = str(locations.config_path)
    try:
        loaded = load_config(locations, os.environ)
        host = resolve_bind(None, loaded.config)
        resolve_port(None, os.environ, loaded.config, locations.dev)
        credentials = resolve_credentials(loaded.config.gateway.auth, os.environ, host)
        notices = [*loaded.notices, *check_startable(loaded.config, locations, os.environ)]
        notices += list_weak_setups(credentials, host, locations, loaded.config.gateway)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"valid": False, "path": path, "problems": list(error.problems), "notices": []})
        raise click.exceptions.Exit(1) from None
    if as_json:
        print_json({"valid": True, "path": path, "problems": [], "notices": notices})
        return
    for notice in notices:
        note(notice)
    click.echo(f"{path} is valid.")


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    from service.config.json_schema import describe_schema

    print_json(describe_schema())


def _parse_value(text: str) -> Any:
    try:
        return parse_json5(text, "The value")
    except ConfigError:
        return text


def _edit(locations: Locations, edit: Callable[[str], str]) -> None:
    from service.config.json5.editing import EditError
    from service.config.loading import validate_text
    from service.config.saving import edit_file
    from service.gateway.startup_checks import check_startable, new_problems

    source = str(locations.config_path)
    remaining: list[str] = []
    new_notices: list[str] = []

    def checked_edit(before: str) -> str:
        parse_json5(before, source)  # only JSON5 can be edited
        return edit(before)

    def validate_edit(text: str) -> ValidationResult:
        return validate_text(text, source, os.environ, lambda config: check_startable(config, locations, os.environ))

    def check(before: str, after: str) -> None:
        before_result, after_result = validate_edit(before), validate_edit(after)
        remaining.extend(after_result.problems)
        new_notices.extend(new_problems(before_result.notices, after_result.notices))
        new = new_problems(before_result.problems, after_result.problems)
        if new and (
            before_result.complete or not after_result.complete
        ):  # otherwise they existed before, hidden behind a problem that is fixed now
            raise ConfigError(new, f"Nothing was written. With this change {source}")

    try:
        edit_file(locations, checked_edit, check)
    except EditError as error:
        raise click.ClickException(f"{error}.") from None
    for problem in remaining:  # earlier problems: a file may be repaired step by step
        note(f"still invalid: {problem}")
    for notice in new_notices:
        note(notice)


def _print_edit(locations: Locations, path: KeyPath, verb: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"ok": True, "path": format_path(path), "file": str(locations.config_path)})
    else:
        click.echo(f"{verb} {format_path(path)} in {locations.config_path}.")
