"""`openclaw agent`: run one turn of an agent."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.common import Seconds, Utf8Text, json_option, pass_locations, print_json
from service.config.source import Locations

if TYPE_CHECKING:
    from service.cli.agent_client import AgentClient, AgentInvocation, AgentResult


@click.command()
@click.option(
    "-m", "--message", type=Utf8Text(replace=True), required=True, help="The message; `-` reads standard input."
)
@click.option("--agent", "agent_id", type=Utf8Text(), metavar="ID", help="The agent; by default the default agent.")
@click.option("--session-id", type=Utf8Text(), metavar="ID", help="The session, by an id of your choice.")
@click.option(
    "--session-key",
    type=Utf8Text(),
    metavar="KEY",
    help="The session, by its key; by default the agent's main session.",
)
@click.option("--model", type=Utf8Text(), metavar="PROVIDER/MODEL", help="Override the model for this turn.")
@click.option(
    "--json-schema",
    "schema_path",
    type=click.Path(exists=True, dir_okay=False, allow_dash=False),
    metavar="FILE",
    help="Answer with JSON that is valid against the schema in this file.",
)
@click.option("--timeout", type=Seconds(), help="Seconds to wait for the complete answer.")
@click.option("--stream", is_flag=True, help="Print the answer as it arrives.")
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
    schema_path: str | None,
    timeout: float | None,
    *,
    stream: bool,
    local: bool,
    as_json: bool,
) -> None:
    """Run one turn of an agent through the gateway, or in this process with --local."""
    if stream and as_json:
        raise click.UsageError("Use either --stream or --json, not both.")
    client = _open_client(locations, local=local)
    from service.cli.agent_client import AgentInvocation, resolve_session

    agent_id, key = resolve_session(agent_id, session_id, session_key)
    text = sys.stdin.buffer.read().decode(errors="replace") if message == "-" else message
    _check_message(text)
    schema = None if schema_path is None else _load_schema(schema_path)
    request = AgentInvocation(text, agent_id, key, model, timeout, schema)
    result = _run(client, request, stream=stream)
    if as_json:
        print_json(result.outcome)
    elif not stream:
        click.echo(result.text)


def _load_schema(path: str) -> dict[str, Any]:
    import orjson

    try:
        schema = orjson.loads(Path(path).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise click.BadParameter(f"{path} cannot be read as JSON: {error}", param_hint="--json-schema") from None
    if not isinstance(schema, dict):
        raise click.BadParameter(f"{path} is not a JSON schema, which is an object.", param_hint="--json-schema")
    return schema


def _check_message(text: str) -> None:
    if not text.strip():
        raise click.BadParameter("the message is empty.", param_hint="--message")


def _open_client(locations: Locations, *, local: bool) -> AgentClient:
    if local:
        from service.server.monkey_patch import make_cooperative

        make_cooperative()
        from service.cli.agent_client_local import LocalAgentClient

        return LocalAgentClient(locations)
    from service.cli.agent_client_websocket import WebSocketAgentClient
    from service.cli.gateway_address import resolve_gateway

    return WebSocketAgentClient(resolve_gateway(locations, os.environ))


def _run(client: AgentClient, request: AgentInvocation, *, stream: bool) -> AgentResult:
    from service.cli.agent_client import AgentFailure, AgentResult, TextOutput

    line_open = False  # an unfinished line of the answer, which other output must not continue
    try:
        with closing(client.run(request)) as events:  # type: ignore[type-var]  # every client returns a generator
            for event in events:
                if isinstance(event, AgentResult):
                    line_open = stream
                    return event
                if not stream:
                    continue
                if isinstance(event, TextOutput):
                    click.echo(event.text, nl=False)
                    line_open = not event.text.endswith("\n")
                else:
                    line = click.style(f"[{event.name}]", dim=True)
                    click.echo(f"\n{line}" if line_open else line, err=True)
                    line_open = False
    finally:
        if line_open:
            click.echo()
    raise AgentFailure("The answer is incomplete.")
