"""`openclaw backup` and `openclaw restore`: copies of SQLite's file, with conversations, runs, keys and usage."""

from __future__ import annotations

import os
from pathlib import Path

import click

from service.cli.shared.common import json_option, pass_locations, print_json
from service.config.source import Locations


def _check_name(_context: click.Context, _argument: click.Parameter, file: Path) -> Path:
    if not file.name:
        raise click.BadParameter("it is empty; name a file.")
    if str(file) == "-":
        raise click.BadParameter("the database needs a file; name one.")
    return file


_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path), callback=_check_name)


@click.command()
@_file
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
@pass_locations
def backup(locations: Locations, file: Path, *, force: bool, as_json: bool) -> None:
    """Write the database to FILE while the gateway goes on.

    It has conversations, runs, API keys (as hashes) and usage; the configuration is a file of its own.
    """
    from service.storage.database.backups import back_up

    if os.path.lexists(file) and not force:
        raise click.ClickException(f"{file} exists. Name another file, or replace it with --force.")
    back_up(_database_of(locations), file)
    if as_json:
        print_json({"ok": True, "file": str(file), "bytes": file.stat().st_size})
    else:
        click.echo(f"Wrote {file} ({file.stat().st_size / 2**20:.1f} MiB).")


@click.command()
@_file
@json_option
@pass_locations
def restore(locations: Locations, file: Path, *, as_json: bool) -> None:
    """Put the backup FILE in place of the database; the gateway must not run.

    The database that was there is kept beside it, also when there are earlier ones.
    """
    from service.storage.database.backups import restore as restore_file

    database = _database_of(locations)
    kept = restore_file(file, database)
    if as_json:
        print_json({"ok": True, "database": str(database), "replaced": None if kept is None else str(kept)})
        return
    click.echo(f"Restored {database}.")
    if kept is not None:
        click.echo(f"The previous database is now {kept}.")


def _database_of(locations: Locations) -> Path:
    from service.config.loading import load_sections, resolve_state_url
    from service.storage.database.open import FILE_NAME

    config = load_sections(locations, os.environ, required=("state",), optional=())
    if resolve_state_url(os.environ, config) is not None:
        raise click.ClickException("The database is PostgreSQL: use pg_dump and pg_restore.")
    return locations.state_dir / FILE_NAME
