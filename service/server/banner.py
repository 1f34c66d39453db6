"""The start-up banner."""

from __future__ import annotations

from service import __version__
from service.api.auth import Credentials
from service.api.client_address import is_loopback
from service.config.schema import Config
from service.gateway.gateway import Gateway

_EXAMPLE_BODY = '{"model": "openclaw", "messages": [{"role": "user", "content": "hi"}]}'


def _url_host(host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not listened on
    return f"[{shown}]" if ":" in shown else shown


def to_banner(opened: Gateway, config: Config, credentials: Credentials, address: tuple[str, int], *, dev: bool) -> str:
    """Return the banner: the address, the agents and an example call."""
    url = f"http://{_url_host(address[0])}:{address[1]}"
    agents, catalog = opened.roster.agents, opened.catalog
    lines = [f"OpenClaw Gateway {__version__} is listening on {url}", f"  try it       {url}/docs"]
    if config.gateway.control_ui.enabled:
        lines.append(f"  page         {url}/")
    lines += [f"  agent        {agent.id}, answered by {catalog.describe(agent)}" for agent in agents]
    missing = catalog.missing_installation(agents)
    if missing is not None:
        lines.append(f"  missing      {missing}")
    if not config.gateway.http.endpoints.chat_completions.enabled:
        lines.append("  endpoint     off; set gateway.http.endpoints.chatCompletions.enabled to true to switch it on")
    elif dev:
        lines.append(_example(url, credentials))
    if not is_loopback(address[0]):
        lines.append(f"  open to      the network, on {address[0]}")
    return "\n".join(lines)


def _example(url: str, credentials: Credentials) -> str:
    header = "" if not credentials.secret else f"-H 'Authorization: Bearer {credentials.secret}' "
    call = f"curl -sS {url}/v1/chat/completions {header}-H 'Content-Type: application/json' -d '{_EXAMPLE_BODY}'"
    return f"\n{call}\n"
