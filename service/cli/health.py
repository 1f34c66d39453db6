"""`openclaw health` and `openclaw status`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from service.cli.shared.common import Seconds, json_option, pass_locations, print_json, printable
from service.config.source import ConfigError, Locations
from service.core.dataclass import record

if TYPE_CHECKING:
    from service.cli.client.address import GatewayAddress

_timeout = click.option("--timeout", type=Seconds(), default=10, help="Seconds to wait.")


@record
class _Health:
    """Health of a gateway; `problem` and `code` are its error when it is not ready.

    `mcp_servers` are the states of the MCP servers that agents may use.
    """

    url: str
    problem: str | None
    latency_ms: float
    code: str | None = None
    mcp_servers: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        ready = self.problem is None
        return {"ok": ready, "url": self.url, "live": True, "ready": ready, "problem": self.problem} | {
            "latencyMs": self.latency_ms
        }


@click.command()
@_timeout
@json_option
@pass_locations
def health(locations: Locations, timeout: float, *, as_json: bool) -> None:
    """Check that the gateway is live and ready; status 1 if not."""
    from service.cli.client.address import resolve_gateway

    found = _probe_health(resolve_gateway(locations, os.environ), timeout)
    if as_json:
        print_json(found.to_json())
    elif found.problem is None:
        click.echo(f"The gateway at {found.url} is live and ready ({found.latency_ms:g} ms).")
    if found.problem is not None:
        click.echo(f"The gateway at {found.url} is live, but not ready. {printable(found.problem)}", err=True)
        raise click.exceptions.Exit(1)


def _probe_health(address: GatewayAddress, timeout: float) -> _Health:
    from service.cli.client.http import Unreachable, error_code, error_message, get_json

    url = address.url
    began = time.monotonic()
    try:
        _, live = get_json(f"{url}/healthz", timeout_seconds=timeout)
        latency_ms = round((time.monotonic() - began) * 1000, 1)
        status, ready = get_json(f"{url}/readyz", timeout_seconds=timeout)
    except Unreachable as error:
        raise Unreachable(f"{error.message} {address.start_hint}") from None
    if not isinstance(live, dict) or live.get("ok") is not True:
        raise Unreachable(f"The server at {url} is not a gateway.")
    problem = None if status < 400 else error_message(ready)  # noqa: PLR2004
    return _Health(url, problem, latency_ms, None if problem is None else error_code(ready), _mcp_servers(ready))


def _mcp_servers(ready: Any) -> tuple[tuple[str, str], ...]:
    """Return the servers in the details of a readiness response, which other versions may lack."""
    try:
        return tuple((str(one["name"]), str(one["state"])) for one in ready["details"]["mcp_servers"])
    except (LookupError, TypeError):
        return ()


@click.command()
@_timeout
@json_option
@pass_locations
def status(locations: Locations, timeout: float, *, as_json: bool) -> None:
    """Show the state of the configuration and the gateway; status 1 on problems."""
    from service.cli.client.address import resolve_gateway
    from service.cli.client.http import Unreachable

    code: str | None = None
    report: dict[str, Any] = {"ok": False, "config": _config_status(locations), "gateway": None}
    try:
        address = resolve_gateway(locations, os.environ)
        report["gateway"] = {"url": address.url, "running": False, "problem": None}
        found = _probe_health(address, timeout)
        report["gateway"] |= {"running": True, "problem": found.problem, "latencyMs": found.latency_ms}
        report["ok"], code = found.problem is None, found.code
        report["mcpServers"] = [{"name": name, "state": state} for name, state in found.mcp_servers]
        report |= _endpoint_status(address, timeout)
        report["ok"] = report["ok"] and report["endpoint"]["problem"] is None
    except (Unreachable, ConfigError) as error:
        problem, code = (error.message, error.code) if isinstance(error, Unreachable) else (str(error), None)
        report["gateway"] = {**(report["gateway"] or {"url": None, "running": False}), "problem": problem}
    report["error"] = None if report["ok"] else _to_error(report, code)
    if as_json:
        print_json(report)
    else:
        _print_status(report)
    if not report["ok"]:
        raise click.exceptions.Exit(1)


def _to_error(report: dict[str, Any], code: str | None) -> dict[str, Any]:
    """Return the first problem; `code` is that of the gateway's."""
    endpoint = report.get("endpoint", {"problem": None, "code": None})
    problem = report["gateway"]["problem"] or endpoint["problem"]
    return {"type": "cli_error", "message": problem, "code": code or endpoint["code"]}


def _config_status(locations: Locations) -> dict[str, Any]:
    from service.config.loading import load_config
    from service.gateway.startup_checks import check_startable

    path = str(locations.config_path)
    if not locations.config_path.exists():
        problem = f"no such file; `{locations.command} setup` writes one"
        return {"path": path, "valid": False, "problems": [problem], "notes": []}
    try:
        notes = check_startable(load_config(locations, os.environ).config, locations, os.environ)
    except ConfigError as error:
        return {"path": path, "valid": False, "problems": list(error.problems), "notes": []}
    return {"path": path, "valid": True, "problems": [], "notes": list(notes)}


def _endpoint_status(address: GatewayAddress, timeout: float) -> dict[str, Any]:
    from service.cli.client.http import error_code, error_message, get_json

    answered, body = get_json(f"{address.url}/v1/models", secret=address.secret, timeout_seconds=timeout)
    agents: list[dict[str, str]] = []
    problem = code = None
    if answered == 200 and isinstance(body, dict):  # noqa: PLR2004
        names = [item for item in body.get("data", ()) if str(item.get("id", "")).startswith("openclaw/")]
        agents = [{"id": item["id"].partition("/")[2], "description": item.get("description", "")} for item in names]
        agents = [agent for agent in agents if agent["id"] != "default"]
    else:
        problem, code = error_message(body), error_code(body)
        if answered == 401:  # noqa: PLR2004
            problem = f"{problem} {address.secret_hint}"
    return {"endpoint": {"enabled": answered != 404, "problem": problem, "code": code}, "agents": agents}  # noqa: PLR2004


def _print_status(report: dict[str, Any]) -> None:
    config, gateway = report["config"], report["gateway"]
    lines = [("configuration", f"{config['path']}{'' if config['valid'] else ' cannot be used'}", config["valid"])]
    lines += [("", problem, False) for problem in config["problems"]]
    lines += [("", note, None) for note in config["notes"]]
    if gateway["running"]:
        status = "is running" if gateway["problem"] is None else f"is not ready. {gateway['problem']}"
        lines.append(("gateway", f"{gateway['url']} {status}", gateway["problem"] is None))
        problem = report["endpoint"]["problem"]
        lines.append(("endpoint", problem or "enabled, and accepts the configured credentials", problem is None))
        lines += [("agent", f"{agent['id']}. {agent['description']}", None) for agent in report["agents"]]
        lines += [
            ("mcp server", f"{one['name']} {one['state']}", one["state"] != "failed") for one in report["mcpServers"]
        ]
    else:
        lines.append(("gateway", gateway["problem"], False))
    for name, text, good in lines:
        colour = {True: "green", False: "red", None: None}[good]
        click.echo(f"{click.style(name.ljust(13), bold=True)}  {click.style(printable(text), fg=colour)}")
