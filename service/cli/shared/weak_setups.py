"""Notes of set-ups that work and that others could abuse: secrets that can be guessed or read, files to change."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from service.api.auth import Credentials, is_generated
from service.config.gateway import GatewayConfig
from service.config.source import Locations

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def list_weak_setups(
    credentials: Credentials, host: str, locations: Locations, gateway: GatewayConfig
) -> tuple[str, ...]:
    """Return a note for each weakness; `host` is the address to listen on."""
    paths = (locations.config_path, locations.config_path.parent, locations.state_dir)
    by_mode = [note for path in dict.fromkeys(paths) for note in _check_mode(path)]
    by_text = _check_readers(locations.config_path, credentials)
    return (*_check_secret(credentials, host), *_check_proxy(gateway), *by_mode, *by_text)


def _check_proxy(gateway: GatewayConfig) -> Iterator[str]:
    auth = gateway.auth
    if auth.mode != "trusted-proxy" or auth.trusted_proxy is None:
        return
    if not auth.trusted_proxy.allow_users:
        yield "gateway.auth.trustedProxy.allowUsers: is empty, so everybody whom the proxy names may use this gateway"
    if any(network.is_loopback for network in gateway.trusted_proxies):
        yield (
            "gateway.trustedProxies: every program on this machine can name any user; run nothing else here, or the "
            "proxy on another machine"
        )
    for name in ("token", "password"):
        if getattr(auth, name) is not None:
            yield f'gateway.auth.{name}: is not accepted with mode "trusted-proxy"; use a key with the scope admin'


def _check_secret(credentials: Credentials, host: str) -> Iterator[str]:
    if not credentials.secret or ip_address(host).is_loopback or is_generated(credentials.secret):
        return
    yield (
        f"gateway.auth.{credentials.mode}: other machines can reach {host} and could guess this secret; use a token "
        "from `openclaw setup`, or 32 random characters or more"
    )


def _check_mode(path: Path) -> Iterator[str]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    is_sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
    if mode & _OTHERS_WRITE and not is_sticky:
        yield f"{path}: other users can change it, and with it what agents may do; run `chmod go-w {path}`"


def _check_readers(path: Path, credentials: Credentials) -> Iterator[str]:
    """Check who can read the file if the secret itself is in it, and not the name of a variable."""
    try:
        is_open = path.stat().st_mode & stat.S_IROTH and path.parent.stat().st_mode & stat.S_IXOTH
        has_secret = is_open and credentials.secret and credentials.secret in path.read_text(errors="replace")
    except OSError:
        return
    if has_secret:
        yield f"{path}: other users can read it, and with it gateway.auth.{credentials.mode}; run `chmod o-r {path}`"
