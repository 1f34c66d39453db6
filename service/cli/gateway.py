"""`openclaw gateway`: serve."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from service import __version__
from service.assembly import build_app, open_gateway
from service.auth import Credentials, is_loopback, resolve_credentials
from service.cli.workers import become_arbiter
from service.config import Config, ConfigError
from service.configfile import (
    LoadedConfig,
    Locations,
    create_dev_config,
    load_config,
    locate,
    resolve_bind,
    resolve_port,
)
from service.connections import raise_open_file_limit
from service.logs import configure_logging
from service.preflight import check_agents, check_mode
from service.server import Server
from service.serving import run_until_stopped
from service.state.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from service.gateway import Gateway
    from service.rpc.hub import Hub

_MOST_WORKERS = 64

_EXAMPLE_BODY = '{"model": "openclaw", "messages": [{"role": "user", "content": "hi"}]}'


@click.command()
@click.option("--port", type=int, help="Port to listen on; 0 takes any free one.")
@click.option("--bind", help='"loopback", "lan", "auto" or "custom".')
@click.option("--dev", is_flag=True, help="Try it out: a configuration of its own, made on the first start.")
@click.option("--profile", help="Keep configuration and state apart under this name.")
@click.option("--workers", type=click.IntRange(1, _MOST_WORKERS), default=1, help="Processes that serve side by side.")
def gateway(port: int | None, bind: str | None, dev: bool, profile: str | None, workers: int) -> None:
    """Serve agents over HTTP until Ctrl-C or SIGTERM."""
    configure_logging()
    try:
        locations, loaded = _load(dev=dev, profile=profile)
        check_mode(loaded.config)
        host = resolve_bind(bind, loaded.config)
        port = resolve_port(port, os.environ, loaded.config, dev)
        credentials = resolve_credentials(loaded.config.gateway.auth, os.environ, host)
        opened = open_gateway(loaded.config, locations.state_dir, os.environ)
    except (ConfigError, StoreError) as error:
        raise click.ClickException(str(error)) from None
    try:
        for notice in check_agents(loaded.config, opened.roster, opened.catalog):
            click.echo(f"Note: {notice}")
        if workers > 1:
            opened.close()  # it was opened to be told of faults once
            server = Server((host, port))
            _listen(server.init_socket, (host, port))
            raise_open_file_limit()
            become_arbiter(server, host, workers=workers, dev=dev, profile=profile)
        _serve(opened, loaded.config, credentials, (host, port), locations.config_path, dev=dev)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    finally:
        opened.close()


def _load(*, dev: bool, profile: str | None) -> tuple[Locations, LoadedConfig]:
    locations = locate(os.environ, dev=dev, profile=profile)
    if dev and create_dev_config(locations, secrets.token_urlsafe(32)):
        click.echo(f"Wrote {locations.config_path}, with a token of its own.")
    loaded = load_config(locations, os.environ)
    for notice in loaded.notices:
        click.echo(f"Note: {notice}")
    return locations, loaded


def _serve(
    opened: Gateway,
    config: Config,
    credentials: Credentials,
    address: tuple[str, int],
    config_path: Path,
    *,
    dev: bool,
) -> None:
    raise_open_file_limit()
    app = build_app(config, credentials, opened, config_path)
    server = Server(address, app)
    _listen(server.start, address)
    announce(opened, config, credentials, (address[0], server.server_port), dev=dev)
    run_until_stopped(server, on_stopping=lambda: _stop_accepting(opened, app.extensions["rpc"]))
    click.echo("Stopped.")


def _listen(start: Callable[[], None], address: tuple[str, int]) -> None:
    try:
        start()
    except OSError as error:
        text = f"Cannot listen on {address[0]} port {address[1]}: {error.strerror}. Try another --port."
        raise click.ClickException(text) from None


def _stop_accepting(opened: Gateway, hub: Hub) -> None:
    opened.drain()
    hub.drain(lambda: opened.running == 0)
    if opened.running:
        click.echo(f"Stopping: {opened.running} still running, 30 s at most. Ctrl-C again stops at once.")


def _url_host(host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not listened on
    return f"[{shown}]" if ":" in shown else shown


def announce(opened: Gateway, config: Config, credentials: Credentials, address: tuple[str, int], *, dev: bool) -> None:
    """Tell the terminal where the gateway listens, who answers, and what to try."""
    url = f"http://{_url_host(address[0])}:{address[1]}"
    agents, catalog = opened.roster.agents, opened.catalog
    for notice in opened.notices():
        click.echo(f"Note: {notice}")
    lines = [f"OpenClaw Gateway {__version__} is listening on {url}", f"  try it       {url}/docs"]
    lines += [f"  agent        {agent.id}, answered by {catalog.describe(agent)}" for agent in agents]
    missing = catalog.missing_installation(agents)
    if missing is not None:
        lines.append(f"  missing      {missing}")
    if not config.gateway.http.endpoints.chat_completions.enabled:
        lines.append("  endpoint     off; set gateway.http.endpoints.chatCompletions.enabled to true to switch it on")
    elif dev:
        lines.append(_example(url, credentials))
    if not is_loopback(address[0]):
        lines.append(f"  open to      the network, on {address[0]}")
    click.echo("\n".join(lines))


def _example(url: str, credentials: Credentials) -> str:
    header = "" if credentials.mode == "none" else f"-H 'Authorization: Bearer {credentials.secret}' "
    call = f"curl -sS {url}/v1/chat/completions {header}-H 'Content-Type: application/json' -d '{_EXAMPLE_BODY}'"
    return f"\n{call}\n"
