"""`GET /metrics` on a port of its own of this machine, without authentication, for a scraper beside the gateway."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

import flask

from service.api.client_address import check_host
from service.api.http.http_response import Response, error_response, ok_response
from service.config.gateway import MetricsConfig
from service.config.source import ConfigError
from service.core.errors import GatewayError
from service.core.logs import access_entry
from service.server.http1.connection import ConnectionLimits
from service.server.http1.server import Server

#: The environment variable with the descriptor of the socket that worker processes share.
LISTENER_KEY = "OPENCLAW_METRICS_LISTENER"

HOST = "127.0.0.1"
_BACKLOG = 64
_LIMITS = ConnectionLimits(connections=64)
_PATH, _METHODS = "/metrics", ("GET", "HEAD")


def listen(config: MetricsConfig) -> socket.socket | None:
    """Return a socket that listens on the port of `config`, if it has one. Raises `ConfigError`."""
    if config.port is None or not config.enabled:
        return None
    try:
        return socket.create_server((HOST, config.port), backlog=_BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]  # the standard library adds the address
        remedy = "Choose another here, or stop the gateway that runs already (`openclaw status`)."
        problem = f"gateway.http.endpoints.metrics.port: cannot listen on port {config.port}: {reason}. {remedy}"
        raise ConfigError([problem]) from None


def share(listener: socket.socket | None) -> None:
    """Hand `listener` to the program that this process becomes."""
    if listener is not None:
        listener.set_inheritable(True)
        os.environ[LISTENER_KEY] = str(listener.detach())


def take_shared() -> socket.socket | None:
    """Return the socket that this process shares with other workers, if there is one."""
    number = os.environ.pop(LISTENER_KEY, None)
    if number is None:
        return None
    listener = socket.socket(fileno=int(number))
    listener.set_inheritable(False)
    return listener


def serve_metrics(listener: socket.socket | None, app: flask.Flask) -> None:
    """Answer on `listener` with the metrics of `app` as long as this process runs."""
    if listener is None:
        return
    listener.setblocking(False)
    environ = {"wsgi.multiprocess": True}  # gevent then takes one connection at a time and leaves others theirs
    Server(listener, _MetricsApp(app), limits=_LIMITS, environ=environ).start()


class _MetricsApp:
    """A WSGI application with one path."""

    def __init__(self, app: flask.Flask) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        try:
            response = self._respond(environ)
        except GatewayError as error:
            response = error_response(error)
        return response(environ, start_response)

    def _respond(self, environ: dict[str, Any]) -> Response:
        entry = access_entry(environ)
        entry.client = environ.get("REMOTE_ADDR")
        check_host(environ.get("HTTP_HOST"))
        if environ["PATH_INFO"] != _PATH:
            raise GatewayError("not_found", f"Unknown path. This port has {_PATH} alone.")
        entry.route = _PATH
        if environ["REQUEST_METHOD"] not in _METHODS:
            headers = {"Allow": ", ".join(_METHODS)}
            raise GatewayError("method_not_allowed", f"{_PATH} can only be read.", headers=headers)
        metrics = self._app.extensions.get("metrics")
        if metrics is None:
            text = "Metrics are off. Set gateway.http.endpoints.metrics.enabled to true in the configuration."
            raise GatewayError("endpoint_disabled", text)
        entry.is_routine = True
        return ok_response(*metrics.to_text(environ.get("HTTP_ACCEPT", "")))
