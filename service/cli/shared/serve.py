"""Start-up and shutdown of `openclaw gateway`."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn

import click

from service.api.auth import resolve_credentials
from service.api.log_lines import GatewayLog
from service.cli.client.http import Unreachable, get_json
from service.cli.shared.weak_setups import list_weak_setups
from service.config.file_watch import FileWatch
from service.config.loading import create_dev_config, load_config, resolve_bind, resolve_port
from service.config.source import ConfigError, Locations
from service.core.logs import configure_logging
from service.core.processes.hardening import make_undumpable, return_freed_memory
from service.gateway.build import open_gateway
from service.gateway.startup_checks import check_agents, check_mode, check_traces
from service.server.app import Apps, open_apps, switch_traces
from service.server.banner import to_banner
from service.server.config_reload import ResolvedConfig, follow_file
from service.server.http1.connection import raise_open_file_limit
from service.server.http1.server import Server
from service.server.lifecycle import Stop, run_until_stopped
from service.server.metrics_listener import listen, serve_metrics, share
from service.server.workers.launch import become_arbiter
from service.storage.database.errors import StoreError

if TYPE_CHECKING:
    from service.api.websocket.hub import Hub
    from service.gateway.gateway import Gateway

_OTHER_PORT = "choose another with --port or gateway.port."
_PROBE_SECONDS = 2.0


def serve(locations: Locations, port: int | None, bind: str | None, *, workers: int, grace_seconds: float) -> None:
    """Serve until Ctrl-C or SIGTERM, following the configuration; `port` and `bind` override environment and file.

    Running answers get `grace_seconds` at shutdown. The standard library has to be patched. Raises `ConfigError`, and
    `click.ClickException` for other errors.
    """
    make_undumpable()
    return_freed_memory()
    configure_logging()
    log = GatewayLog(locations.state_dir)
    if locations.dev and create_dev_config(locations, secrets.token_urlsafe(32)):
        click.echo(f"Wrote {locations.config_path} with a new token.")
    watch = FileWatch(locations.config_path)  # created before the file is read, so that no edit is missed
    started = _resolve(locations, port, bind)
    if workers == 1:  # each worker has its own
        log.apply(started.config.logging)
    for notice in started.notices:
        click.echo(f"Note: {notice}")
    try:
        opened = open_gateway(started.config, locations, os.environ, evicts=workers == 1)
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    try:
        for notice in check_agents(started.config, opened.roster, opened.catalog, locations.private_paths):
            click.echo(f"Note: {notice}")
        for notice in list_weak_setups(started.credentials, started.address[0], locations, started.config.gateway):
            click.echo(f"Note: {notice}")
        metrics = listen(started.config.gateway.http.endpoints.metrics)
        if workers > 1:
            opened.close()  # opened only to report problems once
            share(metrics)
            _start_workers(locations, started.address, workers, grace_seconds)
        apps = open_apps(started.config, started.credentials, opened, locations.config_path)
        serve_metrics(metrics, apps.app)
        follow_file(watch, apps, started, lambda: _resolve(locations, port, bind), locations, log)
        try:
            _serve(apps, started, grace_seconds, dev=locations.dev)
        finally:
            opened.close()
            switch_traces(apps.app, None)
    finally:
        opened.close()


def _resolve(locations: Locations, port: int | None, bind: str | None) -> ResolvedConfig:
    loaded = load_config(locations, os.environ)
    check_mode(loaded.config)
    check_traces(loaded.config)
    host = resolve_bind(bind, loaded.config)
    address = host, resolve_port(port, os.environ, loaded.config, locations.dev)
    if conflicts := loaded.config.gateway.find_port_conflicts(address[1], "the port to listen on"):
        raise ConfigError(conflicts)
    credentials = resolve_credentials(loaded.config.gateway.auth, os.environ, host)
    return ResolvedConfig(loaded.config, loaded.notices, credentials, address)


def _start_workers(locations: Locations, address: tuple[str, int], workers: int, grace_seconds: float) -> NoReturn:
    server = Server(address)
    _listen(server.init_socket, address)
    raise_open_file_limit()
    dev, profile = locations.dev, locations.profile
    become_arbiter(server, address[0], workers=workers, grace_seconds=grace_seconds, dev=dev, profile=profile)


def _serve(apps: Apps, started: ResolvedConfig, grace_seconds: float, *, dev: bool) -> None:
    raise_open_file_limit()
    address, opened = started.address, apps.gateway
    server = Server(address, apps.app.wsgi_app)
    _listen(server.start, address)
    click.echo(to_banner(opened, started.config, started.credentials, (address[0], server.server_port), dev=dev))
    opened.contact_servers()
    opened.check_models()
    on_stop = partial(_stop_accepting, opened, apps.app.extensions["websocket_hub"], grace_seconds)
    run_until_stopped(server, Stop(grace_seconds, on_stop, opened.abort_all, opened.runs.join_detached))
    click.echo("Stopped.")


def _listen(start: Callable[[], None], address: tuple[str, int]) -> None:
    try:
        start()
    except OSError as error:
        reason = (error.strerror or str(error)).partition(": (")[0]  # gevent adds the address
        cause = f"Cannot listen on {address[0]} port {address[1]}: {reason}."
        if error.errno == errno.EADDRINUSE and (url := _running_gateway(address)) is not None:
            text = f"{cause} A gateway is already running at {url}; see `openclaw status`. Stop it, or {_OTHER_PORT}"
            raise click.ClickException(text) from None
        raise click.ClickException(f"{cause} Free the port, or {_OTHER_PORT}") from None


def _running_gateway(address: tuple[str, int]) -> str | None:
    """Return the URL of the gateway at the listen `address`, `None` if another program has the port."""
    host = "127.0.0.1" if address[0] == "0.0.0.0" else address[0]  # noqa: S104 - comparison with the configured address
    url = f"http://{f'[{host}]' if ':' in host else host}:{address[1]}"
    try:
        status, body = get_json(f"{url}/healthz", timeout_seconds=_PROBE_SECONDS)
    except Unreachable:
        return None
    return url if status == HTTPStatus.OK and body == {"ok": True, "status": "live"} else None


def _stop_accepting(opened: Gateway, hub: Hub, grace_seconds: float) -> None:
    opened.drain()
    hub.drain(lambda: opened.running == 0)
    if opened.running:
        count = opened.running
        click.echo(
            f"Stopping: {count} still running, waiting {grace_seconds:g} s at most. Press Ctrl-C again to stop now."
        )
