"""Serving on behalf of `openclaw gateway`: what is opened, listened on and said."""

from __future__ import annotations

import logging
import os
import secrets
from typing import TYPE_CHECKING

import click

from service import __version__
from service.assembly import build_app, open_gateway
from service.auth import Credentials, is_loopback, resolve_credentials
from service.config import Config
from service.configfile import (
    LoadedConfig,
    create_dev_config,
    load_config,
    resolve_bind,
    resolve_port,
)
from service.configtext import Locations
from service.connections import raise_open_file_limit
from service.server import Server
from service.serving import run_until_stopped
from service.state.errors import StoreError

if TYPE_CHECKING:
    from service.gateway import Gateway

_EXAMPLE_BODY = '{"model": "openclaw", "messages": [{"role": "user", "content": "hi"}]}'


def serve(locations: Locations, port: int | None, bind: str | None) -> None:
    """Serve until Ctrl-C or SIGTERM; `port` and `bind` beat the environment and the file.

    The standard library has to be cooperative. Raises `ConfigError`, and `click.ClickException` for what else is wrong.
    """
    _configure_logging()
    loaded = _load(locations)
    host = resolve_bind(bind, loaded.config)
    port = resolve_port(port, os.environ, loaded.config, locations.dev)
    credentials = resolve_credentials(loaded.config.gateway.auth, os.environ, host)
    try:
        opened = open_gateway(loaded.config, locations.state_dir, os.environ)
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    try:
        _serve(opened, loaded.config, credentials, (host, port), dev=locations.dev)
    finally:
        opened.close()


def _configure_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("connexion", "werkzeug"):  # they would repeat what the access log and the answers say
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _load(locations: Locations) -> LoadedConfig:
    if locations.dev and create_dev_config(locations, secrets.token_urlsafe(32)):
        click.echo(f"Wrote {locations.config_path}, with a token of its own.")
    loaded = load_config(locations, os.environ)
    for notice in loaded.notices:
        click.echo(f"Note: {notice}")
    return loaded


def _serve(opened: Gateway, config: Config, credentials: Credentials, address: tuple[str, int], *, dev: bool) -> None:
    raise_open_file_limit()
    server = Server(address, build_app(config, credentials, opened))
    try:
        server.start()
    except OSError as error:
        text = f"Cannot listen on {address[0]} port {address[1]}: {error.strerror}. Try another --port."
        raise click.ClickException(text) from None
    url = f"http://{_url_host(address[0])}:{server.server_port}"
    _announce(opened, config, credentials, url, dev=dev)
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
