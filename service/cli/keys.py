"""`openclaw keys`: named API keys, directly in the database, without a gateway."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import click

from service.cli.shared.budget_option import budget_option, to_budget
from service.cli.shared.common import CommandGroup, json_option, print_json, print_table, printable
from service.cli.shared.storage import pass_storage
from service.cli.usage import format_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.config.schema import Config
    from service.core.rate_limits import RateLimits
    from service.storage.api_keys import ApiKey
    from service.storage.storage import Storage

_SCOPES = ("chat", "read", "write", "metrics", "admin")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,11}")
_MODEL = re.compile(r"[!-.0-~]+/[!-~]+")


class _Span(click.ParamType[int]):
    """A time such as 90d, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds."""
        from service.config.types import parse_span

        try:
            return parse_span(value) or 0
        except ValueError:
            self.fail(f"{value} is not a time. Use a number with s, m, h, d or w: 90d.", param, ctx)


class _Limit(click.ParamType[int]):
    """A number of at least 1, or `none`, which is 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        text = str(value)
        if text == "none":
            return 0
        if not _NUMBER.fullmatch(text):
            self.fail(f"{text} is not a limit. Use a whole number of at least 1, or none.", param, ctx)
        return int(text)


def _limit_options(command: Any) -> Any:
    """Add the options of the limits to a command."""
    options = (
        ("--rpm", "rpm", "Requests in any minute."),
        ("--tpm", "tpm", "Tokens in any minute."),
        ("--concurrent", "concurrent", "Runs at once."),
    )
    for flag, name, text in reversed(options):
        command = click.option(flag, name, type=_Limit(), metavar="N|none", help=text)(command)
    return command


@click.group(cls=CommandGroup)
def keys() -> None:
    """Create, list, limit, rotate and revoke API keys, each with its own data, scopes, agents and models."""


@keys.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(_SCOPES), help="What it may do; write by default.")
@click.option("--agent", "agents", multiple=True, metavar="ID", help="An agent that it may use; all by default.")
@click.option(
    "--model", "models", multiple=True, metavar="REF", help="A model (provider/model, provider/*); all by default."
)
@click.option("--expires", type=_Span(), metavar="TIME", help="When it expires: 90d. Never by default.")
@_limit_options
@budget_option
@json_option
@pass_storage
def create(
    opened: Any,
    name: str,
    *,
    scopes: tuple[str, ...],
    agents: tuple[str, ...],
    models: tuple[str, ...],
    expires: int | None,
    budget: str | None,
    as_json: bool,
    **limits: int | None,
) -> None:
    """Create the key NAME and print it, once: only a digest of it is stored.

    chat starts runs, read reads what the key made, write does both, calls tools, cancels and deletes. metrics gets the
    metrics. admin may do everything on everybody's data, as the gateway's own token may. Limits that are not given here
    are those of gateway.limits.perKey.
    """
    from service.core.principal import Scope
    from service.core.rate_limits import NO_LIMITS

    _check_options(name, scopes, agents, models)
    with opened(writes=True) as (storage, config):
        _check_free(storage, name)
        expires_at_ms = None if expires is None else int((time.time() + expires) * 1000)
        key, text = storage.api_keys.create(
            name,
            [Scope(scope) for scope in dict.fromkeys(scopes)] or [Scope.WRITE],
            agents=_find_agents(config, agents) or None,
            models=models or None,
            expires_at_ms=expires_at_ms,
            limits=_to_limits(limits, NO_LIMITS),
            budget=to_budget(budget, None),
        )
    _print_new(key, text, as_json=as_json)


def _to_limits(given: dict[str, int | None], before: RateLimits) -> RateLimits:
    """Return the limits `before` with those that were given; 0 takes one away."""
    from service.core.rate_limits import RateLimits

    rpm, tpm, concurrent = (
        old if (new := given[name]) is None else new or None
        for name, old in zip(("rpm", "tpm", "concurrent"), before.to_tuple(), strict=True)
    )
    return RateLimits(rpm, tpm, concurrent)


def _check_options(name: str, scopes: Sequence[str], agents: Sequence[str], models: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise click.BadParameter("use 1 to 64 letters, digits and . _ @ -, beginning with a letter or a digit.")
    if "admin" in scopes and (agents or models):
        raise click.UsageError("A key with the scope admin cannot be limited to agents or models.")
    for model in models:
        if not _MODEL.fullmatch(model):
            raise click.UsageError(f"{model} is not a model. Use provider/model, or provider/* for all of a provider.")


def _check_free(storage: Storage, name: str) -> None:
    if any(key.name == name and key.revoked_at_ms is None for key in storage.api_keys.list()):
        text = f"There is a key {name} already. Choose another name, or revoke that one first."
        raise click.ClickException(text)


def _find_agents(config: Config, agents: Sequence[str]) -> list[str]:
    from service.config.roster import Roster

    roster = Roster.from_config(config)
    found = list(dict.fromkeys(agent.strip().lower() for agent in agents))
    for agent in found:
        if agent not in roster:
            known = ", ".join(one.id for one in roster.agents)
            raise click.ClickException(f"{agent} is not an agent of this gateway. Agents: {known}.")
    return found


@keys.command()
@click.argument("key", metavar="NAME|ID")
@_limit_options
@budget_option
@json_option
@pass_storage
def limit(opened: Any, key: str, *, budget: str | None, as_json: bool, **limits: int | None) -> None:
    """Change the limits and the budget of a key, in all gateways within a second. Those that are not given stay."""
    with opened(writes=True) as (storage, _):
        found = _find(storage, key)
        storage.api_keys.set_limits(found.id, _to_limits(limits, found.limits))
        storage.api_keys.set_budget(found.id, to_budget(budget, found.budget))
        found = _find(storage, found.id)
    shown = _to_object(found, int(time.time() * 1000))
    if as_json:
        print_json(shown)
        return
    described = _describe(found.limits) if found.budget is None else f"{_describe(found.limits)}, {found.budget}"
    click.echo(f"{printable(found.name)} ({found.id}): {described}.")


def _describe(limits: RateLimits) -> str:
    from service.core.rate_limits import describe_limits

    return ", ".join(describe_limits(limits).values()) or "no limits of its own"


@keys.command(name="list")
@json_option
@pass_storage
def list_(opened: Any, *, as_json: bool) -> None:
    """List the keys, the oldest first, without their secrets."""
    with opened() as (storage, _):
        found = storage.api_keys.list()
        usage = _load_usage(storage)
    now_ms = int(time.time() * 1000)
    if as_json:
        print_json({"keys": [{**_to_object(key, now_ms), "usage": usage[key.id]} for key in found]})
        return
    rows = [
        (
            key.id,
            key.name,
            key.state_at(now_ms),
            ",".join(key.scopes),
            ",".join(key.agents or ("all",)),
            ",".join(key.models or ("all",)),
            _to_minute(key.expires_at_ms, "never"),
            _to_minute(key.last_used_at_ms, "never"),
            str(usage[key.id]["runs"]),
            format_cost(usage[key.id]),
        )
        for key in found
    ]
    columns = ("ID", "NAME", "STATE", "SCOPES", "AGENTS", "MODELS", "EXPIRES (UTC)", "LAST USED (UTC)")
    print_table((*columns, "RUNS", "COST (USD)"), rows)


def _load_usage(storage: Storage) -> dict[str, dict[str, Any]]:
    """Return the `UsageCounts` of all days by the ids of keys."""
    from service.api.usage_report import to_counts
    from service.core.usage import UsageTotals
    from service.storage.usage import UsageGroup

    used = {row.account: row.totals for row in storage.usage.list(UsageGroup.KEY)}
    return {key.id: to_counts(used.get(key.id, UsageTotals())) for key in storage.api_keys.list()}


@keys.command()
@click.argument("key", metavar="NAME|ID")
@json_option
@pass_storage
def show(opened: Any, key: str, *, as_json: bool) -> None:
    """Show a key, without its secret."""
    with opened() as (storage, _):
        found = _find(storage, key)
        usage = _load_usage(storage)[found.id]
    shown = _to_object(found, int(time.time() * 1000))
    if as_json:
        print_json({**shown, "usage": usage})
        return
    shown |= {**usage, "cost": format_cost(usage)}
    for name, value in shown.items():
        text = ", ".join(value) if isinstance(value, list) else "-" if value is None else str(value)
        click.echo(f"{name:<18} {printable(text)}")


@keys.command()
@click.argument("key", metavar="NAME|ID")
@click.option(
    "--grace", type=_Span(), default="1h", metavar="TIME", help="How long the old one is valid; 1h by default."
)
@json_option
@pass_storage
def rotate(opened: Any, key: str, *, grace: int, as_json: bool) -> None:
    """Replace a key by a new one with the same data and limits, and print that, once."""
    with opened(writes=True) as (storage, _):
        found = _find(storage, key)
        state = found.state_at(int(time.time() * 1000))
        if state != "active":
            raise click.ClickException(f"The key {found.name} is {state}. Create another one.")
        text = storage.api_keys.rotate(found.id, grace)
    _print_new(found, text, as_json=as_json)


@keys.command()
@click.argument("key", metavar="NAME|ID")
@json_option
@pass_storage
def revoke(opened: Any, key: str, *, as_json: bool) -> None:
    """End a key for good, in all gateways within a second. Its sessions and runs are kept."""
    with opened(writes=True) as (storage, _):
        found = _find(storage, key)
        if found.revoked_at_ms is None:
            storage.api_keys.revoke(found.id)
            found = _find(storage, found.id)
    if as_json:
        print_json(_to_object(found, int(time.time() * 1000)))
    else:
        click.echo(f"Revoked {printable(found.name)} ({found.id}).")


def _find(storage: Storage, name: str) -> ApiKey:
    """Return the key with this id, or the latest one with this name."""
    found = storage.api_keys.list()
    named = [key for key in found if key.id == name] or [key for key in found if key.name == name]
    if not named:
        raise click.ClickException(f"There is no key {name[:64]}. `openclaw keys list` has them.")
    return named[-1]


def _print_new(key: ApiKey, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**_to_object(key, int(time.time() * 1000)), "key": text})
        return
    click.echo(text)
    click.echo(f"This is the key {key.name} ({key.id}). It cannot be shown again.", err=True)


def _to_object(key: ApiKey, now_ms: int) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state_at(now_ms),
        "scopes": list(key.scopes),
        "agents": None if key.agents is None else list(key.agents),
        "models": None if key.models is None else list(key.models),
        **dict(zip(("rpm", "tpm", "concurrent"), key.limits.to_tuple(), strict=True)),
        "budget": None if key.budget is None else str(key.budget),
        "created_at": _to_time(key.created_at_ms),
        "expires_at": _to_time(key.expires_at_ms),
        "revoked_at": _to_time(key.revoked_at_ms),
        "last_used_at": _to_time(key.last_used_at_ms),
        "replaced_until": _to_time(key.old_until_ms),
    }


def _to_time(ms: int | None) -> str | None:
    return None if ms is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1000))


def _to_minute(ms: int | None, otherwise: str) -> str:
    return otherwise if ms is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms / 1000))
