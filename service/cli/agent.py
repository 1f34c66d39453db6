"""`openclaw agent`: one turn of an agent, as the endpoint runs it."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import click

from service.cli.common import json_option, pass_locations, print_json
from service.config.source import Locations

if TYPE_CHECKING:
    from service.cli.agent_client import AgentClient, AgentDone, AgentInvocation


@click.command()
@click.option("-m", "--message", required=True, help="What to say; `-` reads it from standard input.")
@click.option("--agent", "agent_id", metavar="ID", help="The agent; the default one without.")
@click.option("--session-id", metavar="ID", help="The session, by an id of your own.")
@click.option("--session-key", metavar="KEY", help="The session, by its key; the agent's main session without.")
@click.option("--model", metavar="PROVIDER/MODEL", help="Another model for this turn.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds to wait for the whole answer.")
@click.option("--stream", is_flag=True, help="Show the answer as it comes.")
@click.option("--local", is_flag=True, help="Run in this process, without a gateway.")
@json_option
@pass_locations
def agent(
    locations: Locations,
    message: str,
    agent_id: str | None,
    session_id: str | None,
    session_key: str | None,
    model: str | None,
    timeout: float | None,
    *,
    stream: bool,
    local: bool,
    as_json: bool,
) -> None:
    """Run one turn of an agent, through the gateway or with --local here, and print what it says."""
    if stream and as_json:
        raise click.UsageError("Give --stream or --json, not both.")
    door = _open_door(locations, local=local)
    from service.cli.agent_client import AgentInvocation, session_of

    agent_id, key = session_of(agent_id, session_id, session_key)
    text = sys.stdin.read() if message == "-" else message
    _check_message(text)
    request = AgentInvocation(text, agent_id, key, model, timeout)
    done = _run(door, request, stream=stream)
    if as_json:
        print_json(done.outcome)
    elif not stream:
        click.echo(done.text)


def _check_message(text: str) -> None:
    if not text.strip():
        raise click.BadParameter("it is empty, and an agent answers only what says something.", param_hint="--message")


def _open_door(locations: Locations, *, local: bool) -> AgentClient:
    if local:
        from service.server.monkey_patch import make_cooperative

        make_cooperative()
        from service.cli.agent_client_local import LocalAgentClient

        return LocalAgentClient(locations)
    from service.cli.agent_client_websocket import WebSocketAgentClient
    from service.cli.gateway_address import find_gateway

    return WebSocketAgentClient(find_gateway(locations, os.environ))


def _run(door: AgentClient, request: AgentInvocation, *, stream: bool) -> AgentDone:
    from service.cli.agent_client import AgentDone, AgentFailure, TextSaid

    begun = False  # a line of the answer: whatever else is said must not stand on it
    try:
        with closing(door.run(request)) as events:  # type: ignore[type-var]  # a generator at every door
            for event in events:
                if isinstance(event, AgentDone):
                    begun = stream
                    return event
                if not stream:
                    continue
                if isinstance(event, TextSaid):
                    click.echo(event.text, nl=False)
                    begun = not event.text.endswith("\n")
                else:
                    line = click.style(f"[{event.name}]", dim=True)
                    click.echo(f"\n{line}" if begun else line, err=True)
                    begun = False
    finally:
        if begun:
            click.echo()
    raise AgentFailure("The answer has no end.")
