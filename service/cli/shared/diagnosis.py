"""The checks of `openclaw doctor`: what keeps a gateway from working here, each with its remedy."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from service.api.auth import resolve_credentials
from service.cli.client.address import resolve_gateway
from service.cli.client.http import Unreachable, error_message, get_json
from service.cli.mcp import test_server
from service.cli.shared.machine_diagnosis import (
    MAX_SKEW_SECONDS,
    PROBE_SECONDS,
    Finding,
    Status,
    check_clock,
    check_collector,
    check_disk,
    check_log,
    check_network,
    check_port,
)
from service.cli.shared.weak_setups import list_weak_setups
from service.config.loading import load_config, resolve_bind, resolve_port, resolve_state_url
from service.config.roster import Roster
from service.config.schema import Config
from service.config.source import ConfigError, Locations
from service.core.concurrency import Deadline, deadline
from service.core.errors import GatewayError
from service.core.messages import Message, Role, Sampling, Text
from service.gateway.startup_checks import check_startable
from service.models.catalog import EMBEDDED_REFERENCE, ModelCatalog
from service.models.local.embedded import installation_problem
from service.models.local.weights import find_weights
from service.models.provider import ModelRequest
from service.server.metrics_listener import HOST as METRICS_HOST
from service.storage.database.errors import StoreError
from service.storage.database.inspection import find_unwritable, inspect_database
from service.storage.database.open import FILE_NAME
from service.tools.exec_sandbox import ExecSandbox
from service.tools.policy_checks import list_users, may_run_commands

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

_CALL_SECONDS = 60.0
#: Enough for the models that refuse less.
_CALL_TOKENS = 16
_UNAUTHORIZED, _BAD = 401, 400
#: Notices of the configuration about sandboxes, which are checked on their own.
_SANDBOX_KEY = ".sandbox:"
#: Failures that pass by themselves.
_PASSING = ("rate_limit_exceeded", "overloaded", "provider_timeout")


def diagnose(locations: Locations, *, calls: bool) -> Iterator[Finding]:
    """Check everything; with `calls` also ask a model of each provider, which may cost a few tokens.

    The standard library has to be patched.
    """
    yield from check_disk(locations.state_dir)
    yield from check_clock(locations.state_dir)
    yield from check_network()
    try:
        config = load_config(locations, os.environ).config if locations.config_path.exists() else None
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("configuration", "error", problem, f"Edit {locations.config_path}.")
        return
    if config is None:
        text = f"there is no configuration at {locations.config_path}"
        yield Finding("configuration", "error", text, f"Run `{locations.command} setup`.")
        return
    reported = list(_check_config(config, locations))
    yield from reported
    if config.gateway.mode == "local":  # otherwise another host serves, and this one needs nothing for it
        yield from _check_serving(config, locations, [one.text for one in reported], calls=calls)
    yield from _check_gateway(config, locations)


def _check_serving(config: Config, locations: Locations, reported: Sequence[str], *, calls: bool) -> Iterator[Finding]:
    yield from check_log(config, locations.state_dir)
    yield from _check_proxies(config)
    yield from _check_database(config, locations)
    yield from _check_sandboxes(config)
    yield from check_collector(config)
    yield from _check_models(config, locations, reported, calls=calls)
    yield from _check_servers(config, locations)


def _check_config(config: Config, locations: Locations) -> Iterator[Finding]:
    subject, edit = "configuration", f"Edit {locations.config_path}"
    try:
        noted, missing = load_config(locations, os.environ).notices, list[str]()
        if config.gateway.mode == "local":
            noted += _check_startable(config, locations)
            missing = _find_missing(config, locations)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(subject, "error", problem, f"{edit}.")
        return
    shown = [one for one in noted if _SANDBOX_KEY not in one and not any(text in one for text in missing)]
    for notice in shown:
        yield Finding(subject, "warning", notice, f"{edit}, do what the text says, or leave it if it is meant.")
    if config.gateway.mode == "local" and not config.gateway.http.endpoints.chat_completions.enabled:
        remedy = f"Run `{locations.command} config set gateway.http.endpoints.chatCompletions.enabled true`."
        yield Finding(subject, "warning", "POST /v1/chat/completions is off", remedy)
    if not shown:
        yield Finding(subject, "ok", str(locations.config_path))


def _check_startable(config: Config, locations: Locations) -> tuple[str, ...]:
    """Return notices about the gateway's start. Raises `ConfigError` for what prevents it."""
    host = resolve_bind(None, config)
    port = resolve_port(None, os.environ, config, locations.dev)
    if conflicts := config.gateway.find_port_conflicts(port, "the port to listen on"):
        raise ConfigError(conflicts)
    credentials = resolve_credentials(config.gateway.auth, os.environ, host)
    notices = check_startable(config, locations, os.environ)
    return (*notices, *list_weak_setups(credentials, host, locations, config.gateway))


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
    subject, url, file = "database", resolve_state_url(os.environ, config), locations.state_dir / FILE_NAME
    if url is None and (unwritable := find_unwritable(file)) is not None:
        text = f"{unwritable} cannot be written by this user"
        yield Finding(subject, "error", text, "Run this and the gateway as its owner, or give them the file (`chown`).")
        return
    try:
        state = inspect_database(url, locations.state_dir)
    except StoreError as error:
        if url is None:
            remedy = "Stop the gateway, and put a backup in its place: `openclaw restore FILE`."
            yield Finding(subject, "error", f"{file}: {error}", remedy)
        else:
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
    if abs(state.clock_ahead_seconds) > MAX_SKEW_SECONDS:
        text = f"the clock of {state.name} is {state.clock_ahead_seconds:+.0f} s from this machine's"
        yield Finding("clock", "error", text, "Keep the clocks of all hosts right with NTP.")


def _check_sandboxes(config: Config) -> Iterator[Finding]:
    roster = Roster.from_config(config)
    if may_run_commands(config, roster):
        sandbox = ExecSandbox.choose(config.tools.exec)
        status: Status = "error" if sandbox.problem is not None else "warning" if sandbox.kind is None else "ok"
        remedy = None if status == "ok" else 'Install bubblewrap, and leave tools.exec.sandbox at "auto".'
        yield Finding("sandbox", status, sandbox.to_text(), remedy)
    for name, server in config.mcp.servers.items():
        is_program = server.command is not None and list_users(name, config, roster)
        if is_program and server.sandbox == "off":  # another that does not work is not started
            text = "runs without a sandbox and can do what the gateway's user can"
            yield Finding(f"sandbox of {name}", "warning", text, f"Set mcp.servers.{name}.sandbox to auto.")


def _check_gateway(config: Config, locations: Locations) -> Iterator[Finding]:
    try:
        address = resolve_gateway(locations, os.environ)
    except ConfigError as error:
        yield Finding("gateway", "error", str(error), f"Correct {error.source}.")
        return
    try:
        status, ready = get_json(f"{address.url}/readyz", timeout_seconds=PROBE_SECONDS)
        live = get_json(f"{address.url}/healthz", timeout_seconds=PROBE_SECONDS)[1]
    except Unreachable as error:
        if address.is_remote:
            yield Finding("gateway", "error", error.message, address.start_hint)
        else:
            yield from _check_ports(config, locations)
        return
    if not isinstance(live, dict) or live.get("status") != "live":
        text = f"another program answers at {address.url}"
        remedy = "Set gateway.port to a free port, or stop that program."
        yield Finding("gateway", "error", text, address.start_hint if address.is_remote else remedy)
    elif status >= _BAD:
        remedy = "Wait if it is starting or stopping; else its log says more (`openclaw logs`)."
        yield Finding("gateway", "error", f"{address.url} is not ready. {error_message(ready)}", remedy)
    else:
        yield Finding("gateway", "ok", f"{address.url} is ready")
        answered, body = get_json(f"{address.url}/v1/models", secret=address.secret, timeout_seconds=PROBE_SECONDS)
        if answered == _UNAUTHORIZED:
            yield Finding("gateway", "error", error_message(body), address.secret_hint)


def _check_ports(config: Config, locations: Locations) -> Iterator[Finding]:
    """Check that a gateway could listen here."""
    host, port = resolve_bind(None, config), resolve_port(None, os.environ, config, locations.dev)
    metrics = config.gateway.http.endpoints.metrics
    taken = [check_port("gateway.port", host, port)]
    if metrics.enabled and metrics.port is not None:
        taken.append(check_port("gateway.http.endpoints.metrics.port", METRICS_HOST, metrics.port))
    found = [one for one in taken if one is not None]
    yield from found or [Finding("gateway", "ok", f"no gateway runs, and port {port} is free for one")]


def _models_by_provider(config: Config) -> dict[str, str]:
    """Return one model of each provider that agents use."""
    agents = Roster.from_config(config).agents
    refs = [ref for agent in agents for ref in (agent.model or EMBEDDED_REFERENCE, *agent.fallbacks)]
    refs += [] if config.tasks.model is None else [config.tasks.model]
    by_provider: dict[str, str] = {}
    for ref in refs:
        by_provider.setdefault(ref.partition("/")[0], ref)
    return by_provider


def _find_missing(config: Config, locations: Locations) -> list[str]:
    """Return the problems of models that `_check_models` reports."""
    with closing(ModelCatalog(config, locations.state_dir, os.environ)) as catalog:
        problems = map(catalog.problem_of, _models_by_provider(config).values())
        return [problem.message for problem in problems if problem is not None]


def _check_models(config: Config, locations: Locations, reported: Sequence[str], *, calls: bool) -> Iterator[Finding]:
    """Ask one model of each provider that agents use, except where a text of `reported` says that it is missing."""
    by_provider = _models_by_provider(config)
    with closing(ModelCatalog(config, locations.state_dir, os.environ)) as catalog:
        for provider, ref in by_provider.items():
            if ref == EMBEDDED_REFERENCE and provider not in config.models.providers:
                yield _check_embedded()
            elif (problem := catalog.problem_of(ref)) is not None:
                remedy = "Do what the text says, or choose another model (agents.defaults.model, or the agent's)."
                if not any(problem.message in text for text in reported):
                    yield Finding(f"provider {provider}", "error", problem.message, remedy)
            elif calls:
                yield _ask(catalog, provider, ref)
            else:
                yield Finding(f"provider {provider}", "ok", f"{ref} can be asked, and was not")
    for provider in (one for one in config.models.providers if one not in by_provider):
        yield Finding(f"provider {provider}", "ok", "no agent uses it, and it was not asked")


def _check_embedded() -> Finding:
    subject = "embedded model"
    if (problem := installation_problem()) is not None:
        return Finding(subject, "error", problem, "Install it, or choose another model (agents.defaults.model).")
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
    reach = "that this machine reaches the host: HTTPS_PROXY, HTTP_PROXY and NO_PROXY say how"
    return f"Check {key}.baseUrl and the model's id, and {reach}."


def _check_servers(config: Config, locations: Locations) -> Iterator[Finding]:
    """Start or contact the MCP servers that agents may use."""
    roster = Roster.from_config(config)
    for name in config.mcp.servers:
        if list_users(name, config, roster):
            yield _check_server(name, config, locations)
        else:
            yield Finding(f"MCP server {name}", "ok", "no agent may use its tools, and it was not tried")


def _check_server(name: str, config: Config, locations: Locations) -> Finding:
    result = test_server(config, locations, name)
    if result["ok"]:
        return Finding(f"MCP server {name}", "ok", f"{len(result['tools'])} tools")
    keys = "url" if config.mcp.servers[name].command is None else "command and args"
    remedy = f"Correct mcp.servers.{name}: its {keys}; then try `openclaw mcp test {name}`."
    return Finding(f"MCP server {name}", "error", result["problem"], remedy)
