"""`openclaw sessions`: the conversations that are kept, read and deleted where they are, gateway or no gateway.

What goes on in one is ended by a gateway.
"""

from __future__ import annotations

import functools
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from service.cli.common import Command, json_option, pass_locations, print_json, print_table
from service.config.source import Locations

if TYPE_CHECKING:
    from service.cli.gateway_connection import OperatorConnection
    from service.config.schema import Config
    from service.storage.sessions.queries import RecentMessage, SessionOverview
    from service.storage.storage import Storage

#: What a KEY may be.
_KEYS = """
A KEY is a whole one, agent:ID:NAME, or NAME alone where only one agent has such a session; --agent says whose.
"""
_agent_option = click.option("--agent", metavar="ID", help="The agent whose session it is.")

_TITLE_CHARACTERS = 40
_SHOWN_CHARACTERS = 2_000
_SHOWN_KEY_CHARACTERS = 200


@click.group()
def sessions() -> None:
    """Look at, export and delete the conversations that are kept, and end what goes on in them."""


def _with_state(command: Command) -> Command:
    """Give `command` what opens the state of the configuration that is meant, as its first argument."""

    @pass_locations
    @functools.wraps(command)
    def stated(place: Locations, *arguments: Any, **options: Any) -> None:
        from service.config.loading import load_config  # only a command that runs needs it

        config = load_config(place, os.environ).config
        command(functools.partial(_opened, config, place.state_dir), *arguments, **options)

    return stated


@contextmanager
def _opened(config: Config, state_dir: Any, *, writes: bool = False) -> Iterator[tuple[Storage, Config]]:
    """The state; one that `writes` first frees what gateways that died still hold."""
    from service.config.loading import resolve_state_url
    from service.storage.database.open import open_database
    from service.storage.storage import Storage

    database = open_database(resolve_state_url(os.environ, config), state_dir)
    with closing(Storage(database, clock=time.time, new_id=lambda: str(uuid.uuid4()))) as state:
        if writes:
            state.membership.join()
        yield state, config


@sessions.command(name="list")
@click.option("--agent", metavar="ID", help="Only sessions of this agent.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@json_option
@_with_state
def list_(opened: Any, *, agent: str | None, limit: int, as_json: bool) -> None:
    """List the sessions, the last used first."""
    from service.storage.sessions.export import to_object

    with opened() as (state, _):
        found = state.store.list_sessions(None if agent is None else agent.lower(), limit + 1)
    has_more, found = len(found) > limit, found[:limit]
    if as_json:
        print_json({"sessions": [to_object(session) for session in found], "has_more": has_more})
        return
    rows = [
        (
            session.key,
            _to_minute(session.updated_at_ms),
            str(session.message_count),
            str(session.usage.input_tokens + session.usage.output_tokens),
            session.model or "-",
            _cut(session.title or "-", _TITLE_CHARACTERS),
        )
        for session in found
    ]
    print_table(("KEY", "LAST USED (UTC)", "MESSAGES", "TOKENS", "MODEL", "TITLE"), rows)
    if has_more:
        click.echo("... and more; --limit shows them", err=True)


@sessions.command(epilog=_KEYS)
@click.argument("key")
@_agent_option
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, help="How many messages, the last ones."
)
@json_option
@_with_state
def show(opened: Any, key: str, *, agent: str | None, limit: int, as_json: bool) -> None:
    """Show the session KEY and its last messages."""
    from service.api.http.session_response import to_session_with_messages

    with opened() as (state, config):
        [session] = _find(state, config, [key], agent)
        active = state.records.list_going_on(session.key)
        recent = state.store.load_recent_messages(session.key, limit)
        failures = state.records.list_failures(session.key)
    if as_json:
        print_json(to_session_with_messages(session, active, recent))
        return
    click.echo(f"{session.key}: {_printable(session.title or '(no title)')}")
    click.echo(
        f"  begun       {_to_minute(session.created_at_ms)}, last used {_to_minute(session.updated_at_ms)} (UTC)"
    )
    usage = session.usage
    click.echo(
        f"  messages    {session.message_count}, {usage.input_tokens} tokens read, {usage.output_tokens} written"
    )
    click.echo(f"  model       {session.model or '-'}")
    for run in active:
        click.echo(f"  {run.state:<11} {run.id}")
    last = {stored.run_id: stored for stored in reversed(recent)}
    for stored in reversed(recent):
        click.echo(f"\n{stored.role} ({_to_minute(stored.at_ms)})\n{_to_text(stored)}")
        if stored.run_id in failures and last[stored.run_id] is stored:
            click.echo(f"  [the run ended here: {failures[stored.run_id]}]")


@sessions.command(epilog=_KEYS)
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@_agent_option
@click.option("--all", "everything", is_flag=True, help="All sessions, or all of --agent.")
@click.option("--output", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="A file to write to.")
@_with_state
def export(opened: Any, keys: tuple[str, ...], *, agent: str | None, everything: bool, output: IO[str]) -> None:
    """Write sessions as JSON, one line for each session, message and summary."""
    from service.storage.sessions.export import export_session

    if bool(keys) == everything:
        raise click.UsageError("Name the sessions to export, or say --all.")
    with opened() as (state, config):
        for session in _iter_all(state, agent) if everything else _find(state, config, keys, agent):
            for line in export_session(state.store, session, state.records.list_failures(session.key)):
                output.write(json.dumps(line, ensure_ascii=False) + "\n")


@sessions.command(epilog=_KEYS)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@_agent_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@_with_state
def delete(opened: Any, keys: tuple[str, ...], *, agent: str | None, yes: bool, as_json: bool) -> None:
    """Delete sessions with all that was said in them."""
    with opened(writes=True) as (state, config):
        found = _find(state, config, keys, agent)
        messages = sum(session.message_count for session in found)
        if not yes:
            many = f"{len(found)} sessions" if len(found) > 1 else f"the session {found[0].key}"
            click.confirm(f"Delete {many} with {messages} messages? There is no way back.", abort=True, err=True)
        for session in found:
            if state.store.delete_session(session.key) is None:
                text = f"A run holds the session {session.key}. Let it end, or `openclaw sessions abort` it first."
                raise click.ClickException(text)
            if not as_json:
                click.echo(f"Deleted {session.key}.")
    if as_json:
        print_json({"ok": True, "deleted": [session.key for session in found], "messages": messages})


@sessions.command()
@click.argument("key")
@_agent_option
@json_option
@pass_locations
def abort(place: Locations, key: str, *, agent: str | None, as_json: bool) -> None:
    """End every run that waits or goes on in the session KEY.

    Asks the running gateway, which ends those of the gateways it shares its database with, too. A KEY is one that
    `openclaw agent --session-key` takes: agent:ID:NAME, or NAME alone for the default agent or the one of --agent.
    """
    from service.cli.agent_client import session_of
    from service.cli.gateway_address import find_gateway
    from service.cli.gateway_connection import UnreachableError, open_operator

    agent_id, own_key = session_of(agent, None, key)
    address = find_gateway(place, os.environ)
    params = {"sessionKey": own_key, **({} if agent_id is None else {"agentId": agent_id})}
    try:
        with open_operator(address) as connection:
            told = connection.wait_for(connection.send("chat.abort", params))
            nothing = "" if as_json or told["runIds"] else f"Nothing goes on in {_full_key(connection, params)}."
    except UnreachableError as error:
        raise UnreachableError(f"{error.message} {address.start_hint}") from None
    if as_json:
        print_json(told)
    else:
        click.echo("\n".join(f"Aborted {run_id}." for run_id in told["runIds"]) or nothing)


def _full_key(connection: OperatorConnection, params: dict[str, Any]) -> str:
    """The key that the gateway takes `params` for: it alone knows its default agent."""
    told = connection.wait_for(connection.send("chat.history", {**params, "limit": 1, "maxChars": 1}))
    return _shown(told["sessionKey"])


@sessions.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted.")
@json_option
@_with_state
def prune(opened: Any, *, dry_run: bool, as_json: bool) -> None:
    """Delete now what `session.maintenance` does not keep."""
    from service.storage.sessions.pruning import Maintenance

    with opened(writes=not dry_run) as (state, config):
        maintenance = Maintenance(state.database, config.session.maintenance, time.time)
        if dry_run:
            found = [(one.key, _to_minute(one.updated_at_ms), one.reason) for one in maintenance.iter_expired()]
            if as_json:
                print_json({"dryRun": True, "sessions": [{"key": key, "reason": reason} for key, _, reason in found]})
            elif found:
                print_table(("KEY", "LAST USED (UTC)", "WHY"), found)
            else:
                click.echo("Nothing to delete.")
            return
        deleted = maintenance.run()
    if as_json:
        counts = {"sessions": deleted.sessions, "runs": deleted.runs, "idempotencyKeys": deleted.idempotency_keys}
        print_json({"dryRun": False, "deleted": counts})
        return
    click.echo(
        f"Deleted {deleted.sessions} sessions, {deleted.runs} records of runs and "
        f"{deleted.idempotency_keys} idempotency keys."
    )


def _find(state: Storage, config: Config, keys: Iterable[str], agent: str | None) -> list[SessionOverview]:
    """The sessions that `keys` mean, each once, in order. Raises `click.ClickException` for one that means none."""
    from service.config.agents import Roster

    agents = [agent.lower()] if agent is not None else [known.id for known in Roster.from_config(config).agents]
    found = [_find_one(state, key, agents, agent) for key in keys]
    return list({session.key: session for session in found}.values())


def _find_one(state: Storage, key: str, agents: Iterable[str], agent: str | None) -> SessionOverview:
    from service.storage.sessions.keys import resolve_stored_key

    meant = dict.fromkeys(resolve_stored_key(key, agent_id, state.store.get_session) for agent_id in agents)
    kept = [session for one in meant if one is not None and (session := state.store.get_session(one)) is not None]
    if agent is not None:
        kept = [session for session in kept if session.agent_id == agent.lower()]
    if len(kept) > 1:
        listed = ", ".join(session.key for session in kept)
        text = f"Several agents have a session {_shown(key)}: {listed}. Name one of these, or add --agent ID."
        raise click.ClickException(text)
    if not kept:
        whose = "" if agent is None else f" of the agent {_shown(agent)}"
        text = f"There is no session {_shown(key)}{whose}. `openclaw sessions list` tells the keys."
        raise click.ClickException(text)
    return kept[0]


def _shown(text: str) -> str:
    return _printable(_cut(text, _SHOWN_KEY_CHARACTERS))


def _iter_all(state: Storage, agent: str | None) -> Iterator[SessionOverview]:
    from service.storage.sessions.queries import Position

    after = None
    agent_id = None if agent is None else agent.lower()
    while page := state.store.list_from(after, 100, agent_id=agent_id):
        yield from page
        after = Position(page[-1].created_at_ms, page[-1].session_id)


def _to_minute(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms // 1000))


def _to_text(stored: RecentMessage) -> str:
    if stored.message is None:
        return "  [too long to be shown; `openclaw sessions export` has it]"
    said = [_cut(stored.message.text, _SHOWN_CHARACTERS)] if stored.message.text else []
    said += [f"[calls {call.name} {_cut(call.arguments, _SHOWN_CHARACTERS)}]" for call in stored.message.tool_calls]
    said += ["[a picture]"] if stored.message.has_image else []
    return "\n".join(f"  {line}" for text in said for line in _printable(text).split("\n"))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _printable(text: str) -> str:
    """`text` without what a terminal would obey."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)
