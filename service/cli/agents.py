"""`openclaw agents`: list the agents, and show one with what it may do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from service.cli.shared.common import CommandGroup, json_option, pass_locations, print_json, print_table
from service.cli.shared.completed_types import AgentId
from service.config.source import Locations

if TYPE_CHECKING:
    from service.config.roster import Agent
    from service.config.schema import Config


@click.group(cls=CommandGroup)
def agents() -> None:
    """List and show the agents."""


@agents.command(name="list")
@json_option
@pass_locations
def list_(locations: Locations, *, as_json: bool) -> None:
    """List the configured agents and mark the default one."""
    from service.config.loading import load_config
    from service.config.roster import Roster
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


@agents.command()
@click.argument("agent_id", metavar="ID", type=AgentId())
@json_option
@pass_locations
def show(locations: Locations, agent_id: str, *, as_json: bool) -> None:
    """Show an agent: its models, each tool with why it is there or not, sandbox and limits.

    No MCP server is contacted; `openclaw mcp test` lists their tools.
    """
    from service.config.loading import load_config
    from service.config.roster import Roster

    config = load_config(locations, os.environ).config
    roster = Roster.from_config(config)
    agent = next((one for one in roster.agents if one.id == agent_id.strip().lower()), None)
    if agent is None:
        raise click.ClickException(f'Unknown agent "{agent_id}". `openclaw agents list` shows the ids.')
    described = _to_json(agent, is_default=agent is roster.default) | _describe(agent, config)
    if as_json:
        print_json(described)
    else:
        _print(described)


def _describe(agent: Agent, config: Config) -> dict[str, Any]:
    from service.config.tools import ToolsConfig
    from service.tools.exec_sandbox import ExecSandbox
    from service.tools.policy_checks import explain_tools

    entry = config.agents.roster.get(agent.id)
    tools = explain_tools(config, agent, ToolsConfig() if entry is None else entry.tools)
    runs_commands = any(tool.name == "exec" and tool.is_allowed for tool in tools)
    limits = config.gateway.limits.of_agent(agent.id)
    budget = config.gateway.limits.budget_of_agent(agent.id)
    return {
        "allowedModels": None if agent.allowed_models is None else list(agent.allowed_models),
        "tools": [{"name": tool.name, "allowed": tool.is_allowed, "reason": tool.reason} for tool in tools],
        "sandbox": ExecSandbox.choose(config.tools.exec).to_text() if runs_commands else None,
        "limits": {
            "timeoutSeconds": agent.timeout_seconds,
            "maxTurns": config.agents.defaults.max_turns,
            "maxConcurrent": config.agents.defaults.max_concurrent,
            "requestsPerMinute": limits.requests_per_minute,
            "tokensPerMinute": limits.tokens_per_minute,
            "concurrentRuns": limits.concurrent_runs,
            "budget": None if budget is None else str(budget),
        },
    }


def _print(agent: dict[str, Any]) -> None:
    models = ", then ".join((agent["model"], *agent["fallbacks"]))
    allowed = agent["allowedModels"]
    click.echo(f"{agent['id']}{' (default)' if agent['isDefault'] else ''}: {agent['name']}")
    click.echo(f"model: {models}; callers may choose {'any' if allowed is None else ', '.join(allowed) or 'no other'}")
    click.echo(f"workspace: {agent['workspace'] or 'none'}")
    if agent["sandbox"] is not None:
        click.echo(f"sandbox: {agent['sandbox']}")
    known = {name: value for name, value in agent["limits"].items() if value is not None}
    click.echo(f"limits: {', '.join(f'{name} {value}' for name, value in known.items())}")
    rows = [(one["name"], "yes" if one["allowed"] else "no", one["reason"]) for one in agent["tools"]]
    print_table(("TOOL", "ALLOWED", "WHY"), rows)


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
