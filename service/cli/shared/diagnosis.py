"""The checks of `openclaw doctor`: what keeps a gateway from working here, each with its remedy."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from service.api.auth import resolve_credentials
from service.cli.client.address import GatewayAddress, resolve_gateway
from service.cli.client.http import Unreachable, error_message, get_json
from service.cli.mcp import test_server
from service.cli.shared.weak_setups import list_weak_setups
from service.config.loading import load_config, resolve_bind, resolve_port, resolve_state_url
from service.config.roster import Roster
from service.config.schema import Config
from service.config.source import ConfigError, Locations
from service.core.concurrency import Deadline, deadline
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Message, Role, Sampling, Text
from service.gateway.startup_checks import check_mode, check_startable
from service.models.catalog import EMBEDDED_REFERENCE, ModelCatalog
from service.models.http.proxies import ProxySettings
from service.models.local.embedded import installation_problem
from service.models.local.weights import find_weights
from service.models.provider import ModelRequest
from service.storage.database.errors import StoreError
from service.storage.database.inspection import inspect_database
from service.tools.exec_sandbox import ExecSandbox
from service.tools.policy_checks import may_run_commands

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

Status = Literal["ok", "warning", "error"]

_PROBE_SECONDS = 3.0
_CALL_SECONDS = 60.0
#: Enough for the models that refuse less.
_CALL_TOKENS = 16
_MIN_FREE_BYTES, _LOW_FREE_BYTES = 100 * 2**20, 2**30
_MIN_FREE_FILES = 1000
#: Beyond this the processes on a database disagree about who is alive.
_MAX_SKEW_SECONDS = 2.0
_UNAUTHORIZED, _BAD = 401, 400
#: Notices of the configuration about sandboxes, which are checked on their own.
_SANDBOX_KEY = ".sandbox:"
#: Failures that pass by themselves.
_PASSING = ("rate_limit_exceeded", "overloaded", "provider_timeout")


@record
class Finding:
    """The result of a check of `subject`; `remedy` is how to mend it."""

    subject: str
    status: Status
    text: str
    remedy: str | None = None


def diagnose(locations: Locations, *, calls: bool) -> Iterator[Finding]:
    """Check everything; with `calls` also ask a model of each provider, which may cost a few tokens.

    The standard library has to be patched.
    """
    yield from _check_disk(locations.state_dir)
    yield from _check_clock(locations.state_dir)
    yield from _check_network()
    try:
        config = load_config(locations, os.environ).config if locations.config_path.exists() else None
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("configuration", "error", problem, f"Edit {locations.config_path}.")
        return
    if config is None:
        text = f"there is no configuration at {locations.config_path}"
        yield Finding("configuration", "error", text, "Run `openclaw setup`.")
        return
    yield from _check_config(config, locations)
    yield from _check_proxies(config)
    yield from _check_database(config, locations)
    yield from _check_sandboxes(config)
    yield from _check_gateway(config, locations)
    yield from _check_models(config, locations, calls=calls)
    for name in config.mcp.servers:
        yield _check_server(name, config, locations)


def _check_disk(state_dir: Path) -> Iterator[Finding]:
    place = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    free, files = shutil.disk_usage(place).free, os.statvfs(place)
    shown = f"{free / 2**30:.1f} GiB free for {state_dir}"
    remedy = "Free space, or set OPENCLAW_STATE_DIR to another disk."
    if not os.access(place, os.W_OK | os.X_OK):
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


def _check_clock(state_dir: Path) -> Iterator[Finding]:
    remedy = "Set the clock, and keep it right with NTP (`timedatectl set-ntp true`)."
    installed = Path(__file__).stat().st_mtime
    if time.time() < installed - 24 * 3600:
        yield Finding("clock", "error", "the clock is behind the day when this program was installed", remedy)
        return
    skew = 0.0
    with suppress(OSError), tempfile.TemporaryFile(dir=state_dir) as file:
        skew = os.fstat(file.fileno()).st_mtime - time.time()
    if abs(skew) > _MAX_SKEW_SECONDS:
        text = f"the file server of {state_dir} is {skew:+.0f} s from this machine's clock"
        yield Finding("clock", "warning", text, remedy)
    else:
        yield Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def _check_network() -> Iterator[Finding]:
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
        try:
            socket.create_connection((proxy.host, proxy.port), _PROBE_SECONDS).close()
            yield Finding("network", "ok", f"providers are reached through {shown}")
        except OSError as error:
            reason = error.strerror or str(error)
            remedy = "Correct HTTPS_PROXY and HTTP_PROXY, or name the providers' hosts in NO_PROXY."
            yield Finding("network", "error", f"{shown} does not answer: {reason}", remedy)
    if not proxies:
        yield Finding("network", "ok", "providers are reached without a proxy")


def _check_config(config: Config, locations: Locations) -> Iterator[Finding]:
    subject = "configuration"
    try:
        check_mode(config)
        host = resolve_bind(None, config)
        resolve_port(None, os.environ, config, locations.dev)
        credentials = resolve_credentials(config.gateway.auth, os.environ, host)
        notices = check_startable(config, locations, os.environ)
        weak = list_weak_setups(credentials, host, locations, config.gateway)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(subject, "error", problem, f"Edit {locations.config_path}.")
        return
    loaded = load_config(locations, os.environ).notices
    shown = [one for one in (*loaded, *notices, *weak) if _SANDBOX_KEY not in one]
    for notice in shown:
        yield Finding(subject, "warning", notice)
    if not config.gateway.http.endpoints.chat_completions.enabled:
        remedy = "Run `openclaw config set gateway.http.endpoints.chatCompletions.enabled true`."
        yield Finding(subject, "warning", "POST /v1/chat/completions is off", remedy)
    if not shown:
        yield Finding(subject, "ok", str(locations.config_path))


def _check_proxies(config: Config) -> Iterator[Finding]:
    """Check who may say for whom a request is, and whether secrets travel in the open."""
    subject, trusted = "reverse proxy", config.gateway.trusted_proxies
    for network in trusted:
        if network.prefixlen == 0:
            text = f"gateway.trustedProxies: {network} trusts every machine to name any client address"
            yield Finding(subject, "error", text, "List the addresses of your proxies alone.")
        elif _is_public(network):
            text = f"gateway.trustedProxies: {network} is a network of the internet"
            yield Finding(subject, "warning", text, "List the addresses of your proxies alone.")
    if config.gateway.bind != "loopback" and not trusted:
        text = "other machines reach the gateway without TLS, or through a proxy that hides its clients"
        remedy = "Put a proxy with TLS in front and list it in gateway.trustedProxies (docs/recipes.md)."
        yield Finding(subject, "warning", text, remedy)


def _is_public(network: IPv4Network | IPv6Network) -> bool:
    return network.is_global and network.num_addresses > 1


def _check_database(config: Config, locations: Locations) -> Iterator[Finding]:
    subject = "database"
    try:
        state = inspect_database(resolve_state_url(os.environ, config), locations.state_dir)
    except StoreError as error:
        yield Finding(subject, "error", str(error), "Check state.url, and that the database runs and lets you in.")
        return
    if state.is_newer:
        text = f"{state.name} has the schema {state.revision} of a newer version"
        yield Finding(subject, "error", text, "Run the newer version, or use another state directory.")
    elif state.revision is None:
        yield Finding(subject, "ok", f"{state.name} is set up by the first start")
    elif not state.is_current:
        text = f"{state.name} has the schema {state.revision} of an older version, which the next start migrates"
        yield Finding(subject, "warning", text, "Make a copy of it before.")
    else:
        yield Finding(subject, "ok", f"{state.name} has this version's schema")
    if abs(state.clock_ahead_seconds) > _MAX_SKEW_SECONDS:
        text = f"the clock of {state.name} is {state.clock_ahead_seconds:+.0f} s from this machine's"
        yield Finding("clock", "error", text, "Keep the clocks of all hosts right with NTP.")


def _check_sandboxes(config: Config) -> Iterator[Finding]:
    roster = Roster.from_config(config)
    if may_run_commands(config, roster):
        sandbox = ExecSandbox.choose(config.tools.exec)
        status: Status = "error" if sandbox.problem is not None else "warning" if sandbox.kind is None else "ok"
        yield Finding("sandbox", status, sandbox.to_text())
    for name, server in config.mcp.servers.items():
        if server.command is not None and server.sandbox == "off":  # another that does not work is not started
            text = "runs without a sandbox and can do what the gateway's user can"
            yield Finding(f"sandbox of {name}", "warning", text, f"Set mcp.servers.{name}.sandbox to auto.")


def _check_gateway(config: Config, locations: Locations) -> Iterator[Finding]:
    try:
        address = resolve_gateway(locations, os.environ)
    except ConfigError as error:
        yield Finding("gateway", "error", str(error))
        return
    try:
        status, ready = get_json(f"{address.url}/readyz", timeout_seconds=_PROBE_SECONDS)
        live = get_json(f"{address.url}/healthz", timeout_seconds=_PROBE_SECONDS)[1]
    except Unreachable as error:
        yield _check_port(config, locations, address, error)
        return
    if not isinstance(live, dict) or live.get("status") != "live":
        text = f"another program answers at {address.url}"
        yield Finding("gateway", "error", text, "Set gateway.port to a free port, or stop that program.")
    elif status >= _BAD:
        yield Finding("gateway", "error", f"{address.url} is not ready. {error_message(ready)}")
    else:
        yield Finding("gateway", "ok", f"{address.url} is ready")
        answered, body = get_json(f"{address.url}/v1/models", secret=address.secret, timeout_seconds=_PROBE_SECONDS)
        if answered == _UNAUTHORIZED:
            yield Finding("gateway", "error", error_message(body), address.secret_hint)


def _check_port(config: Config, locations: Locations, address: GatewayAddress, error: Unreachable) -> Finding:
    if address.is_remote:
        return Finding("gateway", "error", error.message, address.start_hint)
    host, port = resolve_bind(None, config), resolve_port(None, os.environ, config, locations.dev)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as failure:
            text = f"the gateway cannot listen on {host} port {port}: {failure.strerror}"
            return Finding("gateway", "error", text, "Set gateway.port to another port, or stop the other program.")
    return Finding("gateway", "ok", f"no gateway runs, and port {port} is free for one")


def _check_models(config: Config, locations: Locations, *, calls: bool) -> Iterator[Finding]:
    """Ask one model of each provider that agents use."""
    agents = Roster.from_config(config).agents
    refs = [ref for agent in agents for ref in (agent.model or EMBEDDED_REFERENCE, *agent.fallbacks)]
    refs += [] if config.tasks.model is None else [config.tasks.model]
    by_provider: dict[str, str] = {}
    for ref in refs:
        by_provider.setdefault(ref.partition("/")[0], ref)
    with closing(ModelCatalog(config, locations.state_dir, os.environ)) as catalog:
        for provider, ref in by_provider.items():
            if ref == EMBEDDED_REFERENCE and provider not in config.models.providers:
                yield _check_embedded()
            elif (problem := catalog.problem_of(ref)) is not None:
                yield Finding(f"provider {provider}", "error", problem.message)
            elif calls:
                yield _ask(catalog, provider, ref)
            else:
                yield Finding(f"provider {provider}", "ok", f"{ref} can be asked, and was not")


def _check_embedded() -> Finding:
    subject = "embedded model"
    if (problem := installation_problem()) is not None:
        return Finding(subject, "error", problem)
    weights = find_weights()
    if weights is None or weights.stat().st_size == 0:
        return Finding(subject, "error", f"{weights} is empty", "Run `openclaw models install` again.")
    return Finding(subject, "ok", f"{weights.name}, {weights.stat().st_size // 2**20} MiB; a demo that is often wrong")


def _ask(catalog: ModelCatalog, provider: str, ref: str) -> Finding:
    subject = f"provider {provider}"
    model = catalog.choose_named(ref)
    message = Message(Role.USER, (Text("Answer with the word OK."),))
    request = ModelRequest(ref, "", (message,), sampling=Sampling(max_tokens=_CALL_TOKENS))
    began = time.monotonic()
    try:
        with deadline(_CALL_SECONDS):
            model.provider.ask(model.to_request(request), lambda _: None)
    except Deadline:
        return Finding(subject, "error", f"{ref} did not answer within {_CALL_SECONDS:g} s", _remedy(provider, ""))
    except GatewayError as error:
        status: Status = "warning" if error.code in _PASSING else "error"
        return Finding(subject, status, f"{ref}: {error.message}", _remedy(provider, error.code))
    return Finding(subject, "ok", f"{ref} answered in {time.monotonic() - began:.1f} s")


def _remedy(provider: str, code: str) -> str | None:
    key = f"models.providers.{provider}"
    if code in _PASSING:
        return "Try again later; agents.defaults.model.fallbacks name models to ask meanwhile."
    if code == "provider_authentication_failed":
        return f"Check {key}.apiKey, or the variable with the provider's key."
    return f"Check {key}.baseUrl and the model's id, and that this machine reaches the host."


def _check_server(name: str, config: Config, locations: Locations) -> Finding:
    result = test_server(config, locations, name)
    if result["ok"]:
        return Finding(f"MCP server {name}", "ok", f"{len(result['tools'])} tools")
    return Finding(f"MCP server {name}", "error", result["problem"], f"Try `openclaw mcp test {name}`.")
