"""`openclaw mcp`: list the MCP servers of the configuration, and try them without a gateway."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from service.cli.shared.common import CommandGroup, json_option, pass_locations, print_json, print_table, printable
from service.config.source import Locations

if TYPE_CHECKING:
    from service.config.schema import Config


@click.group(cls=CommandGroup)
def mcp() -> None:
    """List and test MCP servers."""


@mcp.command(name="list")
@json_option
@pass_locations
def list_(locations: Locations, *, as_json: bool) -> None:
    """List the MCP servers and the agents that may use them."""
    from service.config.loading import load_sections
    from service.config.roster import Roster
    from service.config.secrets import mask_secrets
    from service.tools.policy_checks import list_users

    # Its secrets are not needed to list them.
    config = load_sections(locations, os.environ, required=(), optional=("agents", "mcp", "tools"))
    roster = Roster.from_config(config)
    servers = [
        (name, mask_secrets(server.url or server.command or "-"), list_users(name, config, roster))
        for name, server in config.mcp.servers.items()
    ]
    if as_json:
        print_json({"servers": [dict(zip(("name", "address", "agents"), one, strict=True)) for one in servers]})
    elif servers:
        rows = [(name, address, ", ".join(agents) or "-") for name, address, agents in servers]
        print_table(("SERVER", "COMMAND OR URL", "AGENTS"), rows)
    else:
        click.echo("No MCP servers are configured (mcp.servers).")


@mcp.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
@pass_locations
def test(locations: Locations, names: tuple[str, ...], *, as_json: bool) -> None:
    """Connect to all MCP servers, or those named, and list their tools; status 1 if one fails.

    The servers are started here, whether or not a gateway runs.
    """
    from service.config.loading import load_config

    config = load_config(locations, os.environ).config
    if unknown := [name for name in names if name not in config.mcp.servers]:
        raise click.ClickException(f"Unknown MCP server {unknown[0]}. `openclaw mcp list` shows the names.")
    results = [test_server(config, locations, name) for name in names or config.mcp.servers]
    if as_json:
        print_json({"ok": all(one["ok"] for one in results), "servers": results})
    for one in () if as_json else results:
        answer = f"{len(one['tools'])} tools: {', '.join(one['tools'])}" if one["ok"] else one["problem"]
        click.echo(printable(f"{one['name']}: {answer}"))
    if not all(one["ok"] for one in results):
        raise click.exceptions.Exit(1)


def test_server(config: Config, locations: Locations, name: str) -> dict[str, Any]:
    """Start or contact the MCP server `name`; return its `name`, whether it is `ok`, its `tools` and its `problem`."""
    from service.config.roster import Roster
    from service.gateway.build import to_mcp_endpoint
    from service.tools.mcp.server import McpServer
    from service.tools.tool import ToolError

    roster = Roster.from_config(config)
    server = McpServer(to_mcp_endpoint(name, config.mcp.servers[name], roster, locations))
    try:
        tools = [tool.name for tool in server.list_tools()]
    except ToolError as error:
        return {"name": name, "ok": False, "tools": [], "problem": f"{_address_of(config, name)}{error}"}
    finally:
        server.close()
    return {"name": name, "ok": True, "tools": tools, "problem": None}


def _address_of(config: Config, name: str) -> str:
    """Return what a problem of the MCP server `name` begins with: its URL, without what may be secret."""
    if (url := config.mcp.servers[name].url) is None:
        return ""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}: "
