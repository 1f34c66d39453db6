"""`openclaw sessions`: read and delete stored conversations directly in the database, without a gateway.

Aborting active runs needs a gateway.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

import click

from service.cli.shared.common import (
    CommandGroup,
    Utf8Text,
    is_terminal,
    json_option,
    pass_locations,
    print_json,
    print_table,
    printable,
    to_json_for_terminal,
)
from service.cli.shared.completed_types import SessionKey
from service.cli.shared.storage import pass_storage
from service.config.source import Locations
from service.core.errors import GatewayError

if TYPE_CHECKING:
    from service.cli.client.connection import OperatorConnection
    from service.config.schema import Config
    from service.storage.sessions.queries import RecentMessage, SessionOverview
    from service.storage.storage import Storage

_KEYS = """
KEY is a complete key, agent:ID:NAME, or NAME alone if only one agent has such a session; --agent selects the agent.
"""
_agent_option = click.option("--agent", metavar="ID", help="The session's agent.")

_TITLE_CHARACTERS = 40
_SHOWN_CHARACTERS = 2_000
_SHOWN_KEY_CHARACTERS = 200


@click.group(cls=CommandGroup)
def sessions() -> None:
    """List, show, export, import, delete and prune sessions; abort their runs."""


@sessions.command(name="list")
@click.option("--agent", metavar="ID", help="Only sessions of this agent.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@json_option
@pass_storage
def list_(opened: Any, *, agent: str | None, limit: int, as_json: bool) -> None:
    """List the sessions, the last used first."""
    from service.storage.sessions.json_objects import to_session

    with opened() as (storage, _):
        found = storage.transcripts.list_sessions(None if agent is None else agent.lower(), limit + 1)
    has_more, found = len(found) > limit, found[:limit]
    if as_json:
        print_json({"sessions": [to_session(session) for session in found], "has_more": has_more})
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
        click.echo("... more sessions exist; use --limit to list them", err=True)


@sessions.command(epilog=_KEYS)
@click.argument("key", type=SessionKey())
@_agent_option
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Number of last messages.")
@json_option
@pass_storage
def show(opened: Any, key: str, *, agent: str | None, limit: int, as_json: bool) -> None:
    """Show a session and its last messages."""
    from service.api.http.session_response import to_session_with_messages

    with opened() as (storage, config):
        [session] = _find(storage, config, [key], agent)
        active = storage.records.list_active(session.key)
        recent = storage.transcripts.load_recent_messages(session.key, limit)
        failures = storage.records.list_failures(session.key)
        tree = storage.transcripts.read_tree(session.key)
    if as_json:
        print_json(to_session_with_messages(session, tree, active, recent))
        return
    click.echo(printable(f"{session.key}: {session.title or '(no title)'}"))
    click.echo(
        f"  created     {_to_minute(session.created_at_ms)}, last used {_to_minute(session.updated_at_ms)} (UTC)"
    )
    usage = session.usage
    click.echo(
        f"  messages    {session.message_count}, {usage.input_tokens} input tokens, {usage.output_tokens} output tokens"
    )
    click.echo(f"  model       {printable(session.model or '-')}")
    if len(tree.leaves) > 1:
        click.echo(f"  branches    {len(tree.leaves)}; the messages below are those of the current one")
    for run in active:
        click.echo(f"  {run.state:<11} {printable(run.id)}")
    last = {stored.run_id: stored for stored in reversed(recent)}
    for stored in reversed(recent):
        click.echo(f"\n{stored.role} ({_to_minute(stored.at_ms)})\n{_to_text(stored)}")
        if stored.run_id in failures and last[stored.run_id] is stored:
            click.echo(f"  [the run ended here: {failures[stored.run_id]}]")


@sessions.command(epilog=_KEYS)
@click.argument("keys", type=SessionKey(), nargs=-1, metavar="[KEY]...")
@_agent_option
@click.option("--all", "everything", is_flag=True, help="All sessions, or all of --agent.")
@click.option("--output", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="Output file.")
@pass_storage
def export(opened: Any, keys: tuple[str, ...], *, agent: str | None, everything: bool, output: IO[str]) -> None:
    """Export sessions as JSON lines: each session, message and summary."""
    from service.storage.sessions.export import export_session

    if bool(keys) == everything:
        raise click.UsageError("Name the sessions to export, or use --all.")
    with opened() as (storage, config):
        for session in _iter_sessions(storage, agent) if everything else _find(storage, config, keys, agent):
            for line in export_session(storage.transcripts, session, storage.records.list_failures(session.key)):
                text = json.dumps(line, ensure_ascii=False)
                output.write((to_json_for_terminal(text) if is_terminal(output) else text) + "\n")


@sessions.command(name="import")
@click.argument("file", type=click.File("rb", lazy=True))
@click.option("--agent", metavar="ID", help="The agent of a transcript of OpenClaw; by default the default one.")
@click.option("--session-key", metavar="NAME", help="The key of such a transcript; by default explicit:ID.")
@click.option("--replace", is_flag=True, help="Delete sessions of the same keys.")
@json_option
@pass_storage
def import_(
    opened: Any, file: IO[bytes], *, agent: str | None, session_key: str | None, replace: bool, as_json: bool
) -> None:
    """Import sessions: what `export` has written, or a transcript of OpenClaw (ID.jsonl).

    All of the file or nothing. What is not understood is refused with the number of its line.
    """
    from service.cli.shared.session_import import read_sessions
    from service.storage.sessions.importing import ImportConflictError, ImportSessions
    from service.storage.sessions.session_files import SessionFileError

    with opened(writes=True) as (storage, config):
        try:
            found = read_sessions(file, config, agent, session_key)
            messages = storage.database.write(ImportSessions(found, replace, uuid.uuid4))
        except (SessionFileError, ImportConflictError) as error:
            raise click.ClickException(f"{file.name}, {error}. Nothing was imported.") from None
    notes = [note for session in found for note in session.notes]
    if as_json:
        print_json({"ok": True, "imported": [one.key for one in found], "messages": messages, "notes": notes})
    else:
        click.echo("\n".join(f"Imported {printable(session.key)}." for session in found))
        for note in notes:
            click.echo(printable(f"{file.name}, {note}."), err=True)


@sessions.command(epilog=_KEYS)
@click.argument("keys", type=SessionKey(), nargs=-1, required=True, metavar="KEY...")
@_agent_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
@pass_storage
def delete(opened: Any, keys: tuple[str, ...], *, agent: str | None, yes: bool, as_json: bool) -> None:
    """Delete sessions with all their messages."""
    with opened(writes=True) as (storage, config):
        found = _find(storage, config, keys, agent)
        messages = sum(session.message_count for session in found)
        if not yes:
            many = f"{len(found)} sessions" if len(found) > 1 else f"the session {printable(found[0].key)}"
            click.confirm(f"Delete {many} with {messages} messages? This cannot be undone.", abort=True, err=True)
        for session in found:
            if storage.transcripts.delete_session(session.key) is None:
                text = f"The session {session.key} has an active run. Wait, or use `openclaw sessions abort` first."
                raise GatewayError("session_busy", text)
            if not as_json:
                click.echo(f"Deleted {printable(session.key)}.")
    if as_json:
        print_json({"ok": True, "deleted": [session.key for session in found], "messages": messages})


@sessions.command()
@click.argument("key", type=SessionKey())
@click.option("--agent", type=Utf8Text(), metavar="ID", help="The session's agent.")
@json_option
@pass_locations
def abort(locations: Locations, key: str, *, agent: str | None, as_json: bool) -> None:
    """Abort every queued and running run of a session.

    Asks the running gateway, which also aborts runs of other gateways that share its database. KEY is as for
    `openclaw agent --session-key`: agent:ID:NAME, or NAME alone for the default agent or the one of --agent.
    """
    from service.cli.client.address import resolve_gateway
    from service.cli.client.agent import resolve_session
    from service.cli.client.connection import UnreachableError, open_operator

    agent_id, own_key = resolve_session(agent, None, key)
    address = resolve_gateway(locations, os.environ)
    params = {"sessionKey": own_key, **({} if agent_id is None else {"agentId": agent_id})}
    try:
        with open_operator(address) as connection:
            response = connection.wait_for(connection.send("chat.abort", params))
            nothing = "" if as_json or response["runIds"] else f"No run is active in {_full_key(connection, params)}."
    except UnreachableError as error:
        raise UnreachableError(f"{error.message} {address.start_hint}") from None
    if as_json:
        print_json(response)
    else:
        click.echo(printable("\n".join(f"Aborted {run_id}." for run_id in response["runIds"])) or nothing)


def _full_key(connection: OperatorConnection, params: dict[str, Any]) -> str:
    """Ask the gateway for the complete key, which may have its default agent."""
    response = connection.wait_for(connection.send("chat.history", {**params, "limit": 1, "maxChars": 1}))
    return _short_key(response["sessionKey"])


@sessions.command()
@click.option("--dry-run", is_flag=True, help="Only list what would be deleted.")
@json_option
@pass_storage
def prune(opened: Any, *, dry_run: bool, as_json: bool) -> None:
    """Delete expired sessions according to `session.maintenance`."""
    from service.storage.sessions.pruning import Pruner

    with opened(writes=not dry_run) as (storage, config):
        pruner = Pruner(storage.database, config.session.maintenance, time.time)
        if dry_run:
            found = [(one.key, _to_minute(one.updated_at_ms), one.reason) for one in pruner.iter_expired()]
            if as_json:
                print_json({"dryRun": True, "sessions": [{"key": key, "reason": reason} for key, _, reason in found]})
            elif found:
                print_table(("KEY", "LAST USED (UTC)", "REASON"), found)
            else:
                click.echo("Nothing to delete.")
            return
        deleted = pruner.run()
    if as_json:
        counts = {"sessions": deleted.sessions, "runs": deleted.runs, "idempotencyKeys": deleted.idempotency_keys}
        print_json({"dryRun": False, "deleted": counts})
        return
    click.echo(
        f"Deleted {deleted.sessions} sessions, {deleted.runs} run records and "
        f"{deleted.idempotency_keys} idempotency keys."
    )


def _find(storage: Storage, config: Config, keys: Iterable[str], agent: str | None) -> list[SessionOverview]:
    """Resolve `keys` to sessions, each once, in order. Raises `GatewayError` for an unknown key."""
    from service.config.roster import Roster

    agents = [agent.lower()] if agent is not None else [known.id for known in Roster.from_config(config).agents]
    found = [_find_one(storage, key, agents, agent) for key in keys]
    return list({session.key: session for session in found}.values())


def _find_one(storage: Storage, key: str, agents: Iterable[str], agent: str | None) -> SessionOverview:
    from service.storage.sessions.keys import resolve_stored_key

    candidates = dict.fromkeys(
        resolve_stored_key(key, agent_id, storage.transcripts.get_session) for agent_id in agents
    )
    stored = [
        session
        for one in candidates
        if one is not None and (session := storage.transcripts.get_session(one)) is not None
    ]
    if agent is not None:
        stored = [session for session in stored if session.agent_id == agent.lower()]
    if len(stored) > 1:
        listed = ", ".join(session.key for session in stored)
        text = f"Several agents have a session {_short_key(key)}: {listed}. Use one of these keys, or add --agent ID."
        raise GatewayError("invalid_value", text)
    if not stored:
        of_agent = "" if agent is None else f" of the agent {_short_key(agent)}"
        text = f"Unknown session {_short_key(key)}{of_agent}. `openclaw sessions list` shows the keys."
        raise GatewayError("session_not_found", text)
    return stored[0]


def _short_key(text: str) -> str:
    return printable(_cut(text, _SHOWN_KEY_CHARACTERS))


def _iter_sessions(storage: Storage, agent: str | None) -> Iterator[SessionOverview]:
    from service.storage.sessions.queries import Position

    after = None
    agent_id = None if agent is None else agent.lower()
    while page := storage.transcripts.list_from(after, 100, agent_id=agent_id):
        yield from page
        after = Position(page[-1].created_at_ms, page[-1].session_id)


def _to_minute(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms // 1000))


def _to_text(stored: RecentMessage) -> str:
    if stored.message is None:
        return "  [too long to show; `openclaw sessions export` includes it]"
    said = [_cut(stored.message.text, _SHOWN_CHARACTERS)] if stored.message.text else []
    said += [f"[calls {call.name} {_cut(call.arguments, _SHOWN_CHARACTERS)}]" for call in stored.message.tool_calls]
    said += ["[image]"] if stored.message.has_image else []
    return "\n".join(f"  {line}" for text in said for line in printable(text).split("\n"))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
