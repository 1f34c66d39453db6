"""`openclaw approvals`: list and decide tool calls that wait for a decision, in the database, without a gateway."""

from __future__ import annotations

import getpass
import os
import time
from typing import TYPE_CHECKING, Any

import click

from service.cli.shared.common import CommandGroup, Utf8Text, json_option, print_json, printable
from service.cli.shared.storage import pass_storage

if TYPE_CHECKING:
    from service.storage.runs.approvals import ApprovalRecord

_DECISIONS = ("allow-once", "allow-session", "deny")


@click.group(cls=CommandGroup)
def approvals() -> None:
    """List and decide tool calls that wait for a person."""


@approvals.command(name="list")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@json_option
@pass_storage
def list_(opened: Any, *, limit: int, as_json: bool) -> None:
    """List the pending approvals, the oldest first, with the complete arguments of each call."""
    from service.api.http.approval_response import to_approval_list  # slow imports, here and below

    with opened() as (storage, _):
        found = storage.approvals.list_pending(limit + 1)
    if as_json:
        print_json(to_approval_list(found, limit))
        return
    for one in found[:limit]:
        _print(one)
    if not found:
        click.echo("No approval is pending.")
    if len(found) > limit:
        click.echo("... more approvals are pending; use --limit to list them", err=True)


@approvals.command()
@click.argument("approval_id", metavar="ID", type=Utf8Text())
@click.argument("decision", type=click.Choice(_DECISIONS))
@json_option
@pass_storage
def resolve(opened: Any, approval_id: str, decision: str, *, as_json: bool) -> None:
    """Decide the pending approval ID.

    allow-session also allows later calls in the same session: of `exec` the same command, of other tools every call.
    """
    from service.api.http.approval_response import to_approval
    from service.core.messages import ApprovalDecision

    with opened(writes=True) as (storage, _):
        decided = storage.approvals.decide(approval_id, ApprovalDecision(decision), f"cli {_user_name()}")
    if as_json:
        print_json(to_approval(decided))
    else:
        click.echo(f"{'Denied' if decision == 'deny' else 'Allowed'} {decided.tool} of {printable(decided.run_id)}.")


def _print(approval: ApprovalRecord) -> None:
    asked, expires = (_to_time(ms) for ms in (approval.created_at_ms, approval.expires_at_ms))
    click.echo(click.style(approval.id, bold=True))
    click.echo(f"  tool       {printable(approval.tool)}")
    click.echo(f"  arguments  {printable(approval.arguments)}")
    click.echo(f"  session    {printable(approval.session_key)}, run {printable(approval.run_id)}")
    click.echo(f"  asked      {asked}, expires {expires} (UTC)")
    click.echo(f"  decisions  {', '.join(approval.decisions)}")


def _to_time(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms / 1000))


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return str(os.getuid())
