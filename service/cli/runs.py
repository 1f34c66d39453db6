"""`openclaw runs`: list, show, watch and cancel runs, through a gateway."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click

from service.cli.shared.common import (
    CommandGroup,
    Utf8Text,
    json_option,
    pass_locations,
    print_json,
    print_json_text,
    print_table,
    print_text,
    printable,
)
from service.config.source import Locations

if TYPE_CHECKING:
    from service.cli.client.address import GatewayAddress

_STATES = ("queued", "running", "waiting", "ok", "error", "aborted", "interrupted")
_TIMEOUT_SECONDS = 30.0


@click.group(cls=CommandGroup)
def runs() -> None:
    """List, show, watch and cancel runs."""


@runs.command(name="list")
@click.option("--agent", type=Utf8Text(), metavar="ID", help="Only runs of this agent.")
@click.option("--session-key", type=Utf8Text(), metavar="KEY", help="Only runs of this session.")
@click.option("--state", type=click.Choice(_STATES), help="Only runs in this state.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many at most.")
@json_option
@pass_locations
def list_(
    locations: Locations,
    *,
    agent: str | None,
    session_key: str | None,
    state: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List runs, the newest first."""
    given = {"agent": agent, "session_key": session_key, "state": state, "limit": limit}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    page = _ask(_resolve(locations), "GET", f"/v1/runs?{query}")
    if as_json:
        print_json(page)
        return
    rows = [(run["id"], run["state"], _to_second(run["created_at"]), run["session_key"]) for run in page["data"]]
    if rows:
        print_table(("RUN", "STATE", "ACCEPTED (UTC)", "SESSION"), rows)
    else:
        click.echo("There are no such runs.")
    if page["has_more"]:
        click.echo("... there are more runs; use --limit to list them", err=True)


@runs.command()
@click.argument("run_id", metavar="ID", type=Utf8Text())
@json_option
@pass_locations
def show(locations: Locations, run_id: str, *, as_json: bool) -> None:
    """Show what the run ID is doing, or how it has ended."""
    run = _ask(_resolve(locations), "GET", _path_of(run_id))
    if as_json:
        print_json(run)
    else:
        _print(run)


@runs.command()
@click.argument("run_id", metavar="ID", type=Utf8Text())
@json_option
@pass_locations
def cancel(locations: Locations, run_id: str, *, as_json: bool) -> None:
    """Cancel the run ID, whichever process executes it."""
    run = _ask(_resolve(locations), "POST", f"{_path_of(run_id)}/cancel")
    if as_json:
        print_json(run)
    else:
        click.echo(f"Cancelled {printable(run['id'])}.")


@runs.command()
@click.argument("run_id", metavar="ID", type=Utf8Text())
@click.option("--after", type=click.IntRange(0), default=0, help="Begin after the event of this number.")
@json_option
@pass_locations
def watch(locations: Locations, run_id: str, *, after: int, as_json: bool) -> None:
    """Show the run ID as it goes on: its text, and its reasoning and tools on standard error.

    With --json each event is a line. A lost connection is made again. Exits with 1 unless the run ends with an answer.
    """
    from service.cli.client.run_watch import iter_events

    end: dict[str, Any] = {}
    for event in iter_events(_resolve(locations), _path_of(run_id), after):
        if as_json:
            print_json_text(json.dumps(event, ensure_ascii=False))
        else:
            _print_event(event)
        end = event if event["type"] == "run.ended" else end
    if end and not as_json:
        click.echo()
    if end and end["state"] != "ok":
        if not as_json:
            click.echo(f"The run ended: {printable(end['error']['message'])}", err=True)
        raise click.exceptions.Exit(1)


def _print_event(event: dict[str, Any]) -> None:
    match event["type"]:
        case "text.delta":
            print_text(event["text"], nl=False)
        case "reasoning.delta":
            click.echo(click.style(printable(event["text"]), dim=True), nl=False, err=True)
        case "text.retracted" | "reasoning.retracted":
            click.echo(f"\n[the last {event['characters']} characters were retracted]", err=True)
        case "tool.started" | "tool.requested":
            click.echo(f"[{printable(event['name'])} {printable(event['arguments'])}]", err=True)
        case "tool.ended":
            outcome = "done" if event["ok"] else f"failed: {printable(event['summary'])}"
            click.echo(f"[{outcome}, {event['duration_ms']} ms]", err=True)
        case "approval.requested":
            click.echo(f"[{printable(event['tool'])} waits for an approval: {printable(event['id'])}]", err=True)


def _print(run: dict[str, Any]) -> None:
    click.echo(click.style(printable(run["id"]), bold=True))
    usage = run["usage"]
    tokens = f"{usage['input_tokens']} input, {usage['output_tokens']} output"
    rows = {
        "state": run["state"] if run["tool"] is None else f"{run['state']}, uses {run['tool']}",
        "agent": run["agent"],
        "session": run["session_key"],
        "model": run["model"],
        "step": run["step"],
        "tokens": tokens,
        "cost": None if usage["cost"] is None else f"{usage['cost']:.9f} USD",
        **{name: run[f"{name}_at"] and _to_second(run[f"{name}_at"]) for name in ("created", "started", "ended")},
        "error": run["error"] and run["error"]["message"],
    }
    for name, value in rows.items():
        if value is not None:
            click.echo(f"  {name:<9}{printable(str(value))}")


def _to_second(time: str) -> str:
    return time[:19].replace("T", " ")


def _resolve(locations: Locations) -> GatewayAddress:
    from service.cli.client.address import resolve_gateway

    return resolve_gateway(locations, os.environ)


def _path_of(run_id: str) -> str:
    return f"/v1/runs/{quote(run_id, safe='')}"


def _ask(address: GatewayAddress, method: str, path: str) -> Any:
    from service.cli.client.http import Unreachable, request_json
    from service.cli.client.run_watch import RefusedError

    try:
        status, body = request_json(method, address.url + path, secret=address.secret, timeout_seconds=_TIMEOUT_SECONDS)
    except Unreachable as error:
        raise Unreachable(f"{error.message} {address.start_hint}") from None
    if status != 200:  # noqa: PLR2004 - OK
        raise RefusedError(address, status, body)
    return body
