"""Address and secret of the gateway for client commands, read from the file without validating all of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any
from urllib.parse import urlsplit

from service.config.source import (
    DEV_PORT,
    ConfigError,
    Locations,
    check_port,
    parse_json5,
    port_of_environment,
    read_config_text,
    substitute,
)
from service.core.dataclass import record

_DEFAULT_PORT = 18789
_VARIABLES = ("OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD")
#: Sources of an address that may be on another host.
_BY_ENVIRONMENT, _BY_FILE = _REMOTE_ORIGINS = ("OPENCLAW_GATEWAY_URL", "gateway.remote")
_PLAIN_PATH = re.compile(r"[!-~]*")
#: What no header can carry; the last are bytes of the environment that are not UTF-8.
_UNUSABLE = re.compile(r"[\0\r\n\ud800-\udfff]")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


@record
class GatewayAddress:
    """A gateway's HTTP address without a trailing slash, its secret (may be empty), and the source of both.

    `secret_keys` are the settings for the secret, `missing_file` is the path of a missing configuration, `command`
    calls the program for the gateway of this machine.
    """

    url: str
    secret: str = field(repr=False)
    origin: str
    secret_keys: tuple[str, ...] = ()
    missing_file: str | None = None
    command: str = "openclaw"

    @property
    def secret_hint(self) -> str:
        """Remedy for a wrong or missing secret."""
        return f"Set the gateway's secret in {self.secret_source}.{self._setup_hint}"

    @property
    def secret_source(self) -> str:
        """Where the secret may be from."""
        return " or ".join(self.secret_keys)

    @property
    def is_remote(self) -> bool:
        """True if the gateway may be on another host."""
        return self.origin in _REMOTE_ORIGINS

    @property
    def start_hint(self) -> str:
        """Remedy for an unreachable gateway."""
        if self.is_remote:
            return f"The address is from {self.origin}."
        return f"Is the gateway running? `{self.command} gateway` starts one.{self._setup_hint}"

    @property
    def _setup_hint(self) -> str:
        if self.missing_file is None:
            return ""
        return f" There is no configuration at {self.missing_file}: `{self.command} setup` writes one."


def resolve_gateway(locations: Locations, environ: Mapping[str, str]) -> GatewayAddress:
    """Resolve the gateway of OPENCLAW_GATEWAY_URL, else of `gateway.remote`, else of this machine.

    Secrets are sent only to their own gateway: with OPENCLAW_GATEWAY_URL only those of the environment are used. Raises
    `ConfigError` for an unusable file, address or secret.
    """
    address = _resolve(locations, environ)
    if _UNUSABLE.search(address.secret):
        raise ConfigError(["the gateway's secret has a line break, or is not UTF-8"], address.secret_source)
    return address


def _resolve(locations: Locations, environ: Mapping[str, str]) -> GatewayAddress:
    url = environ.get("OPENCLAW_GATEWAY_URL", "").strip()
    if url:
        return GatewayAddress(_http_url(url, _BY_ENVIRONMENT), _from_environ(environ), _BY_ENVIRONMENT, _VARIABLES)
    gateway = _read_gateway(locations, environ)
    if _get(gateway, "mode") == "remote":
        remote = _get(gateway, "remote", "url")
        if not isinstance(remote, str):
            raise ConfigError(['gateway.remote.url: is required with mode "remote"'], str(locations.config_path))
        if _get(gateway, "remote", "tlsFingerprint"):
            problem = "gateway.remote.tlsFingerprint: cannot be checked; remove it, or set OPENCLAW_GATEWAY_URL"
            raise ConfigError([problem], str(locations.config_path))
        secret = _get(gateway, "remote", "token") or _get(gateway, "remote", "password") or _from_environ(environ)
        keys = ("gateway.remote.token", "gateway.remote.password", *_VARIABLES)
        return GatewayAddress(_http_url(remote, "gateway.remote.url"), str(secret), _BY_FILE, keys)
    host = _get(gateway, "customBindHost") if _get(gateway, "bind") == "custom" else None
    shown = f"[{host}]" if ":" in str(host) else host or "127.0.0.1"
    default = DEV_PORT if locations.dev else _DEFAULT_PORT
    port = port_of_environment(environ)
    if port is None:
        port = check_port(_get(gateway, "port") or default, "gateway.port")
    path = str(locations.config_path)
    return GatewayAddress(
        f"http://{shown}:{port}",
        _own_secret(gateway, environ),
        path,
        ("gateway.auth.token", "gateway.auth.password", *_VARIABLES),
        None if locations.config_path.exists() else path,
        locations.command,
    )


def _read_gateway(locations: Locations, environ: Mapping[str, str]) -> Any:
    if not locations.config_path.exists():
        return {}
    data = parse_json5(read_config_text(locations), str(locations.config_path))
    complete, gaps = substitute(_get(data, "gateway"), environ)
    for gap in gaps:  # a missing value may not be needed, but the placeholder must not be sent
        _clear(complete, gap.path)
    return complete


def _clear(data: Any, path: tuple[str | int, ...]) -> None:
    for step in path[:-1]:
        data = data[step]
    data[path[-1]] = None


def _own_secret(gateway: Any, environ: Mapping[str, str]) -> str:
    token = _get(gateway, "auth", "token") or environ.get("OPENCLAW_GATEWAY_TOKEN")
    password = _get(gateway, "auth", "password") or environ.get("OPENCLAW_GATEWAY_PASSWORD")
    by_mode = {"none": "", "token": token, "password": password}
    return str(by_mode.get(str(_get(gateway, "auth", "mode")), token or password) or "")


def _from_environ(environ: Mapping[str, str]) -> str:
    return environ.get("OPENCLAW_GATEWAY_TOKEN") or environ.get("OPENCLAW_GATEWAY_PASSWORD") or ""


def _get(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _http_url(text: str, origin: str) -> str:
    try:
        parts = urlsplit(text)
        named = bool((parts.hostname or "").encode("idna")) and _PLAIN_PATH.fullmatch(parts.path) is not None
        usable = parts.scheme in _SCHEMES and named and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(["must be the address of a gateway, such as ws://127.0.0.1:18789"], origin)
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
