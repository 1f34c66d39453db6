"""`openclaw agents`: list the agents."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from service.cli.shared.common import CommandGroup, json_option, pass_locations, print_json, print_table
from service.config.source import Locations

if TYPE_CHECKING:
    from service.config.agents import Agent


@click.group(cls=CommandGroup)
def agents() -> None:
    """List the agents."""


@agents.command(name="list")
@json_option
@pass_locations
def list_(locations: Locations, *, as_json: bool) -> None:
    """List the configured agents and mark the default one."""
    from service.config.agents import Roster
    from service.config.loading import load_config
    from service.models.catalog import EMBEDDED_REFERENCE

    roster = Roster.from_config(load_config(locations, os.environ).config)
    if as_json:
        print_json([_to_json(agent, is_default=agent is roster.default) for agent in roster.agents])
        return
    rows = [
        (
            f"{agent.id}{' (default)' if agent is roster.default else ''}",
            agent.name,
            ", then ".join((agent.model or EMBEDDED_REFERENCE, *agent.fallbacks)),
            str(agent.workspace or "-"),
        )
        for agent in roster.agents
    ]
    print_table(("AGENT", "NAME", "MODEL", "WORKSPACE"), rows)


def _to_json(agent: Agent, *, is_default: bool) -> dict[str, Any]:
    from service.models.catalog import EMBEDDED_REFERENCE

    return {
        "id": agent.id,
        "name": agent.name,
        "isDefault": is_default,
        "model": agent.model or EMBEDDED_REFERENCE,
        "fallbacks": list(agent.fallbacks),
        "workspace": None if agent.workspace is None else str(agent.workspace),
    }
