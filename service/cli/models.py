"""`openclaw models`: list models and install the embedded one."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from service.cli.shared.common import (
    CommandGroup,
    json_option,
    note,
    pass_locations,
    print_json,
    print_table,
    report_errors,
)
from service.config.source import Locations

if TYPE_CHECKING:
    from service.cli.shared.model_discovery import AvailableModel


@click.group(cls=CommandGroup)
def models() -> None:
    """List models and install the embedded one."""


@models.command(name="list")
@json_option
@pass_locations
def list_(locations: Locations, *, as_json: bool) -> None:
    """List the available models, their source and the agents that use them."""
    from service.cli.shared.model_discovery import find_models
    from service.config.loading import load_config
    from service.config.roster import Roster
    from service.config.schema import Config
    from service.models.catalog import ModelCatalog

    config = load_config(locations, os.environ).config if locations.config_path.exists() else Config()
    found = find_models(config, os.environ)
    with closing(ModelCatalog(config, locations.state_dir, os.environ)) as catalog:
        unlisted = catalog.find_unlisted_models(Roster.from_config(config).agents)
    notes = {model.ref: model.to_text() for model in unlisted}
    if as_json:
        print_json([{**_to_json(model), "note": notes.get(model.ref)} for model in found])
        return
    for text in notes.values():
        note(text)
    rows = [(model.ref, model.source, model.problem or "yes", ", ".join(model.agents) or "-") for model in found]
    print_table(("MODEL", "FROM", "USABLE", "AGENTS"), rows)


def _to_json(model: AvailableModel) -> dict[str, Any]:
    return {
        "key": model.ref,
        "source": model.source,
        "available": model.problem is None,
        "problem": model.problem,
        "agents": list(model.agents),
        "input": None if model.input is None else list(model.input),
        "contextWindow": model.context_window,
    }


@models.command()
@report_errors
def install() -> None:
    """Install the embedded demo model (runtime and weights), unless it is installed."""
    from service.models.local.weights import install_embedded_model

    install_embedded_model(click.echo)
    click.echo("The embedded model is installed. It is a demo model: small, fast, often wrong.")
