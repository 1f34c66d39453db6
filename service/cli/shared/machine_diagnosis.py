"""The checks of `openclaw doctor` on the machine: disk, clock, network, log file, ports, the collector of traces."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from service.config.schema import Config
from service.core.dataclass import record
from service.models.http.proxies import ProxySettings

Status = Literal["ok", "warning", "error"]

PROBE_SECONDS = 3.0
#: Beyond this the processes on a database disagree about who is alive.
MAX_SKEW_SECONDS = 2.0
_MIN_FREE_BYTES, _LOW_FREE_BYTES = 100 * 2**20, 2**30
_MIN_FREE_FILES = 1000
_PORTS = {"http": 80, "https": 443}


@record
class Finding:
    """The result of a check of `subject`; `remedy` is how to mend it, which all that is not ok has."""

    subject: str
    status: Status
    text: str
    remedy: str | None = None


def check_disk(state_dir: Path) -> Iterator[Finding]:
    """Check that the state directory can be written, and has room."""
    place = _existing(state_dir)
    if not place.exists():
        text = f"{place} is a link to nothing"
        yield Finding("disk", "error", text, "Create what it links to, or set OPENCLAW_STATE_DIR to a directory.")
        return
    free, files = shutil.disk_usage(place).free, os.statvfs(place)
    shown = f"{free / 2**30:.1f} GiB free for {state_dir}"
    remedy = "Free space, or set OPENCLAW_STATE_DIR to another disk."
    if not place.is_dir():
        text = f"{place} is not a directory"
        yield Finding("disk", "error", text, "Move the file away, or set OPENCLAW_STATE_DIR to a directory.")
    elif not os.access(place, os.W_OK | os.X_OK):
        text = f"{place} cannot be written by this user"
        yield Finding("disk", "error", text, "Run the gateway as its owner, or set OPENCLAW_STATE_DIR.")
    elif free < _MIN_FREE_BYTES:
        yield Finding("disk", "error", shown, remedy)
    elif free < _LOW_FREE_BYTES:
        yield Finding("disk", "warning", shown, remedy)
    elif files.f_files > 0 and files.f_favail < _MIN_FREE_FILES:
        yield Finding("disk", "error", f"{files.f_favail} files (inodes) left for {state_dir}", remedy)
    else:
        yield Finding("disk", "ok", shown)


def _existing(path: Path) -> Path:
    """Return `path`, or the nearest directory above it that exists."""
    return next(one for one in (path, *path.parents) if os.path.lexists(one))


def check_clock(state_dir: Path) -> Iterator[Finding]:
    """Compare the clock with the state directory's file system."""
    remedy = "Set the clock, and keep it right with NTP (`timedatectl set-ntp true`)."
    installed = Path(__file__).stat().st_mtime
    if time.time() < installed - 24 * 3600:
        yield Finding("clock", "error", "the clock is behind the day when this program was installed", remedy)
        return
    skew = 0.0
    with suppress(OSError), tempfile.TemporaryFile(dir=state_dir) as file:
        skew = os.fstat(file.fileno()).st_mtime - time.time()
    if abs(skew) > MAX_SKEW_SECONDS:
        text = f"the file server of {state_dir} is {skew:+.0f} s from this machine's clock"
        yield Finding("clock", "warning", text, remedy)
    else:
        yield Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def check_network() -> Iterator[Finding]:
    """Check the certificates and the proxies of the environment."""
    settings = ProxySettings.from_environment(os.environ)
    if settings.ca_path is not None and not Path(settings.ca_path).exists():
        text = f"SSL_CERT_FILE or REQUESTS_CA_BUNDLE names {settings.ca_path}, which does not exist"
        yield Finding("network", "error", text, "Correct the variable, or unset it to trust the system's certificates.")
    try:
        proxies = {settings.proxy_for(f"{scheme}://provider.example") for scheme in ("https", "http")} - {None}
    except ValueError as error:
        yield Finding("network", "error", str(error), "Correct the variable, or unset it.")
        return
    for proxy in proxies:
        assert proxy is not None  # noqa: S101 - for the type checker
        shown = f"the proxy {proxy.host}:{proxy.port}"
        reason = _refusal_of(proxy.host, proxy.port)
        if reason is None:
            yield Finding("network", "ok", f"providers are reached through {shown}")
        else:
            remedy = "Correct HTTPS_PROXY and HTTP_PROXY, or name the providers' hosts in NO_PROXY."
            yield Finding("network", "error", f"{shown} does not answer: {reason}", remedy)
    if not proxies:
        yield Finding("network", "ok", "providers are reached without a proxy")


def _refusal_of(host: str, port: int) -> str | None:
    """Return why nothing answers at an address, `None` if something does."""
    try:
        socket.create_connection((host, port), PROBE_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def check_log(config: Config, state_dir: Path) -> Iterator[Finding]:
    """Check that the log file can be written, without making one."""
    path = config.logging.path_in(state_dir)
    if path is None:
        return
    place = _existing(path)
    try:
        if place == path:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))
        else:
            tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        text = f"logging.file: {path} cannot be written: {error.strerror}"
        yield Finding("log file", "error", text, "Set logging.file to a path that the gateway's user can write.")


def check_port(key: str, host: str, port: int) -> Finding | None:
    """Return what keeps a gateway from listening on the port of the configuration's `key`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            text = f"{key}: the gateway cannot listen on {host} port {port}: {error.strerror}"
            return Finding("gateway", "error", text, f"Set {key} to another port, or stop the other program.")
    return None


def check_collector(config: Config) -> Iterator[Finding]:
    """Check that something listens where traces are sent, unless a proxy is in between."""
    if not config.diagnostics.sends_traces:
        return
    url = config.diagnostics.otel.find_url(os.environ)
    remedy = "Correct diagnostics.otel.endpoint or OTEL_EXPORTER_OTLP_ENDPOINT, or start the collector."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        is_proxied = ProxySettings.from_environment(os.environ).proxy_for(url) is not None
    except (ValueError, LookupError):  # or a proxy that is not usable, which the check of the network reports
        yield Finding("traces", "warning", "the address of the collector of traces cannot be used", remedy)
        return
    shown = f"the collector of traces at {host} port {port}"
    if is_proxied:
        yield Finding("traces", "ok", f"{shown} is reached through a proxy, and was not tried")
    elif (reason := _refusal_of(host, port)) is not None:
        yield Finding("traces", "warning", f"{shown} does not answer: {reason}", remedy)
    else:
        yield Finding("traces", "ok", f"{shown} answers")
