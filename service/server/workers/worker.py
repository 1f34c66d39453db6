"""A worker: one of several processes that serve one port, after its standard library has been patched.

Nothing is shared across the fork: each worker opens its own configuration, storage, models and server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import field
from typing import Any, Self

import gevent

from service.api.auth import resolve_credentials
from service.api.log_lines import GatewayLog
from service.config.file_watch import FileWatch
from service.config.loading import load_config, resolve_bind, resolve_port
from service.config.source import ConfigError, Locations, locate
from service.core.dataclass import record
from service.gateway.build import open_gateway
from service.gateway.gateway import Gateway
from service.gateway.startup_checks import check_traces
from service.server.app import open_apps, switch_traces
from service.server.banner import to_banner
from service.server.config_reload import ResolvedConfig, follow_file
from service.server.http1.request_handler import RequestHandler
from service.server.http1.server import Server
from service.server.lifecycle import Stop, run_until_dismissed
from service.server.metrics_listener import serve_metrics, take_shared
from service.storage.database.errors import StoreError

_BEAT_SECONDS = 1.0


@record
class Settings:
    """The location and content of the configuration, for a gateway that listens on `host`."""

    locations: Locations
    resolved: ResolvedConfig
    host: str

    @classmethod
    def load(cls, host: str, *, dev: bool, profile: str | None) -> Self:
        """Read the configuration. Raises `ConfigError`."""
        locations = locate(os.environ, dev=dev, profile=profile)
        return cls(locations, cls.resolve(locations, host), host)

    @staticmethod
    def resolve(locations: Locations, host: str) -> ResolvedConfig:
        """Read the file again. Raises `ConfigError`."""
        loaded = load_config(locations, os.environ)
        check_traces(loaded.config)
        address = resolve_bind(None, loaded.config), resolve_port(None, os.environ, loaded.config, locations.dev)
        credentials = resolve_credentials(loaded.config.gateway.auth, os.environ, host)
        return ResolvedConfig(loaded.config, loaded.notices, credentials, address)


def find_fault(host: str, *, dev: bool, profile: str | None) -> str | None:
    """Return a description of what is wrong with the current configuration, or `None`."""
    try:
        Settings.load(host, dev=dev, profile=profile)
    except ConfigError as error:
        return str(error)
    return None


class CannotOpenError(Exception):
    """The gateway cannot be opened; the text is shown to people."""


@record
class Worker:
    """A gateway opened by this process, and its WSGI application."""

    settings: Settings
    gateway: Gateway
    app: Any = field(repr=False)

    @classmethod
    def open(cls, host: str, *, dev: bool, profile: str | None) -> Self:
        """Read the configuration and open what it describes. Raises `CannotOpenError`."""
        gevent.config.track_greenlet_tree = False  # as in `make_cooperative`
        try:
            watch = FileWatch(locate(os.environ, dev=dev, profile=profile).config_path)
            settings = Settings.load(host, dev=dev, profile=profile)
            locations, resolved = settings.locations, settings.resolved
            log = GatewayLog(locations.state_dir, with_process=True)
            log.apply(resolved.config.logging)
            opened = open_gateway(resolved.config, locations, os.environ)
        except (ConfigError, StoreError) as error:
            raise CannotOpenError(str(error)) from None
        apps = open_apps(resolved.config, resolved.credentials, opened, settings.locations.config_path)
        serve_metrics(take_shared(), apps.app)
        follow_file(watch, apps, resolved, lambda: Settings.resolve(locations, host), locations, log)
        return cls(settings, opened, apps.app)

    def serve(
        self,
        listener: socket.socket,
        server_class: type[Server],
        handler_class: type[RequestHandler],
        grace_seconds: float,
        *,
        is_last: Callable[[], bool],
        is_wanted: Callable[[], bool],
        beat: Callable[[], None],
    ) -> None:
        """Serve `listener` until stopped and close the gateway, calling `beat` about every second meanwhile.

        Running requests get `grace_seconds` to finish. The worker that `is_last` to start prints the banner.
        """
        heartbeat = gevent.spawn(_keep_beating, beat)
        environ = {"wsgi.multiprocess": True}  # gevent then takes one connection at a time and leaves others theirs
        server = server_class(listener, self.app.wsgi_app, handler_class=handler_class, environ=environ)

        def on_started() -> None:
            if is_last():
                resolved, address = self.settings.resolved, (self.settings.host, server.server_port)
                dev = self.settings.locations.dev
                banner = to_banner(self.gateway, resolved.config, resolved.credentials, address, dev=dev)
                print(banner, flush=True)  # noqa: T201 - for the terminal
                self.gateway.check_models()
            self.gateway.contact_servers()

        try:
            stop = Stop(grace_seconds, self._stop_accepting, self.gateway.abort_all, self.gateway.runs.join_detached)
            run_until_dismissed(server, stop, on_started=on_started, is_wanted=is_wanted)
        finally:
            if (metrics := self.app.extensions.get("metrics")) is not None:
                metrics.publish()
            self.gateway.close()
            switch_traces(self.app, None)
            heartbeat.kill()

    def _stop_accepting(self) -> None:
        self.gateway.drain()
        self.app.extensions["websocket_hub"].drain(lambda: self.gateway.running == 0)


def _keep_beating(beat: Callable[[], None]) -> None:
    while True:
        beat()
        gevent.sleep(_BEAT_SECONDS)
