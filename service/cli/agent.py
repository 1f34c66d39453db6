"""`openclaw agent`: run one turn of an agent."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.shared.common import (
    Seconds,
    Utf8Text,
    json_option,
    pass_locations,
    print_json,
    print_text,
    printable,
)
from service.cli.shared.completed_types import AgentId, ModelRef, SessionKey
from service.config.source import Locations

if TYPE_CHECKING:
    from service.cli.client.agent import AgentClient, AgentInvocation, AgentResult


agent_option = click.option(
    "--agent", "agent_id", type=AgentId(), metavar="ID", help="The agent; by default the default agent."
)
session_key_option = click.option(
    "--session-key",
    type=SessionKey(),
    metavar="KEY",
    help="The session, by its key; by default the agent's main session.",
)
model_option = click.option("--model", type=ModelRef(), metavar="PROVIDER/MODEL", help="Override the agent's model.")
local_option = click.option("--local", is_flag=True, help="Run in this process, without a gateway.")


@click.command()
@click.argument("text", type=Utf8Text(replace=True), required=False)
@click.option("-m", "--message", type=Utf8Text(replace=True), help="The message, like TEXT; `-` reads standard input.")
@agent_option
@click.option("--session-id", type=Utf8Text(), metavar="ID", help="The session, by an id of your choice.")
@session_key_option
@model_option
@click.option(
    "--json-schema",
    "schema_path",
    type=click.Path(exists=True, dir_okay=False, allow_dash=False),
    metavar="FILE",
    help="Answer with JSON that is valid against the schema in this file.",
)
@click.option("--timeout", type=Seconds(), help="Seconds to wait for the complete answer.")
@click.option("--stream", is_flag=True, help="Print the answer as it arrives.")
@local_option
@json_option
@pass_locations
def agent(
    locations: Locations,
    text: str | None,
    message: str | None,
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
    if (text is None) == (message is None):
        raise click.UsageError("Give the message once, as TEXT or with --message.")
    if stream and as_json:
        raise click.UsageError("Use either --stream or --json, not both.")
    client = open_client(locations, local=local)
    from service.cli.client.agent import AgentInvocation, resolve_session

    agent_id, key = resolve_session(agent_id, session_id, session_key)
    said = text if message is None else message
    text = sys.stdin.buffer.read().decode(errors="replace") if said == "-" else said or ""
    _check_message(text)
    schema = None if schema_path is None else _load_schema(schema_path)
    request = AgentInvocation(text, agent_id, key, model, timeout, schema)
    with closing(client):
        result = run_turn(client, request, stream=stream)
    if as_json:
        print_json(result.outcome)
    elif not stream:
        print_text(result.text)


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


def open_client(locations: Locations, *, local: bool) -> AgentClient:
    """Return a client for the gateway, or with `local` one that runs agents in this process."""
    if local:
        from service.server.monkey_patch import make_cooperative

        make_cooperative()
        from service.cli.client.agent_local import LocalAgentClient

        return LocalAgentClient(locations)
    from service.cli.client.address import resolve_gateway
    from service.cli.client.agent_websocket import WebSocketAgentClient

    return WebSocketAgentClient(resolve_gateway(locations, os.environ))


def run_turn(client: AgentClient, request: AgentInvocation, *, stream: bool) -> AgentResult:
    """Run a turn; with `stream` print its text and its tools as they come. Raises `AgentFailure`."""
    from service.cli.client.agent import AgentFailure, AgentResult, TextOutput

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
                    print_text(event.text, nl=False)
                    line_open = not event.text.endswith("\n")
                else:
                    line = click.style(f"[{printable(event.name)}]", dim=True)
                    click.echo(f"\n{line}" if line_open else line, err=True)
                    line_open = False
    finally:
        if line_open:
            click.echo()
    raise AgentFailure("The answer is incomplete.")
