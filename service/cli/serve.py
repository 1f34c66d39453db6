"""Serving on behalf of `openclaw gateway`: what is opened, listened on and said."""

from __future__ import annotations

import logging
import os
import secrets
from typing import TYPE_CHECKING

import click

from service import __version__
from service.app import Door, create_app
from service.assembly import open_gateway, open_parts
from service.auth import Credentials, is_loopback, resolve_credentials
from service.concurrency import spawn
from service.config import Config
from service.configfile import create_dev_config, load_config, resolve_bind, resolve_port
from service.configtext import Locations
from service.connections import raise_open_file_limit
from service.doors import open_door
from service.filewatch import FileWatch
from service.reconfiguration import Reconfiguration, Resolved
from service.server import Server
from service.serving import run_until_stopped
from service.state.errors import StoreError

if TYPE_CHECKING:
    from service.gateway import Gateway

_EXAMPLE_BODY = '{"model": "openclaw", "messages": [{"role": "user", "content": "hi"}]}'


def serve(locations: Locations, port: int | None, bind: str | None) -> None:
    """Serve until Ctrl-C or SIGTERM, following the configuration; `port` and `bind` beat the environment and the file.

    The standard library has to be cooperative. Raises `ConfigError`, and `click.ClickException` for what else is wrong.
    """
    _configure_logging()
    if locations.dev and create_dev_config(locations, secrets.token_urlsafe(32)):
        click.echo(f"Wrote {locations.config_path}, with a token of its own.")
    watch = FileWatch(locations.config_path)  # made before the file is read, so that no edit is missed
    started = _resolve(locations, port, bind)
    for notice in started.notices:
        click.echo(f"Note: {notice}")
    try:
        opened = open_gateway(started.config, locations.state_dir, os.environ)
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    try:
        door = open_door(started.config, started.credentials, opened)
        live = Reconfiguration(
            opened,
            door,
            started,
            lambda: _resolve(locations, port, bind),
            lambda config: open_parts(config, opened.state.store, locations.state_dir, os.environ),
        )
        spawn(watch.follow, live.apply)
        _serve(door, started, dev=locations.dev)
    finally:
        opened.close()


def _resolve(locations: Locations, port: int | None, bind: str | None) -> Resolved:
    loaded = load_config(locations, os.environ)
    host = resolve_bind(bind, loaded.config)
    address = host, resolve_port(port, os.environ, loaded.config, locations.dev)
    credentials = resolve_credentials(loaded.config.gateway.auth, os.environ, host)
    return Resolved(loaded.config, loaded.notices, credentials, address)


def _configure_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("connexion", "werkzeug"):  # they would repeat what the access log and the answers say
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _serve(door: Door, started: Resolved, *, dev: bool) -> None:
    raise_open_file_limit()
    address, opened = started.address, door.gateway
    server = Server(address, create_app(door))
    try:
        server.start()
    except OSError as error:
        text = f"Cannot listen on {address[0]} port {address[1]}: {error.strerror}. Try another --port."
        raise click.ClickException(text) from None
    url = f"http://{_url_host(address[0])}:{server.server_port}"
    _announce(opened, started.config, started.credentials, url, dev=dev)
    if not is_loopback(address[0]):
        click.echo(f"  open to      the network, on {address[0]}")
    run_until_stopped(server, on_stopping=lambda: _stop_accepting(opened))
    click.echo("Stopped.")


def _stop_accepting(opened: Gateway) -> None:
    opened.drain()
    if opened.running:
        click.echo(f"Stopping: {opened.running} still running, 30 s at most. Ctrl-C again stops at once.")


def _url_host(host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not listened on
    return f"[{shown}]" if ":" in shown else shown


def _announce(opened: Gateway, config: Config, credentials: Credentials, url: str, *, dev: bool) -> None:
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
    click.echo("\n".join(lines))


def _example(url: str, credentials: Credentials) -> str:
    header = "" if credentials.mode == "none" else f"-H 'Authorization: Bearer {credentials.secret}' "
    call = f"curl -sS {url}/v1/chat/completions {header}-H 'Content-Type: application/json' -d '{_EXAMPLE_BODY}'"
    return f"\n{call}\n"
