"""The questions of `openclaw setup` on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from service.core.dataclass import record

_EMBEDDED, _OLLAMA, _OTHER = "local", "ollama", "other"
_OTHER_ID = "custom"


@record
class Answers:
    """The answers: the model, why it was chosen, whether to switch the endpoint on, and `models.providers`."""

    model: str
    reason: str
    endpoint: bool
    providers: Mapping[str, Mapping[str, Any]]


def ask(found: str, first_models: Mapping[str, str], ollama_models: list[str], environ: Mapping[str, str]) -> Answers:
    """Ask for provider, key, model and endpoint; `found` is the model that would be chosen without questions.

    `first_models` are models by provider to offer first, `ollama_models` those of an Ollama that runs.
    """
    click.echo("Ctrl-C ends this without writing anything; Enter takes what is in [brackets].")
    choices = [*first_models, *([_OLLAMA] if ollama_models else []), _EMBEDDED, _OTHER]
    click.echo(f"Providers: {', '.join(choices)} ({_EMBEDDED} is a small demo model, {_OTHER} any with a URL)")
    default = found.partition("/")[0]
    provider = click.prompt("Provider", default=default, type=click.Choice(choices), show_choices=False)
    settings: dict[str, Any] = {}
    if provider == _EMBEDDED:
        from service.models.catalog import EMBEDDED_REFERENCE

        model = EMBEDDED_REFERENCE
    elif provider == _OLLAMA:
        model = f"{_OLLAMA}/{click.prompt('Model', default=ollama_models[0])}"
    elif provider == _OTHER:
        url = click.prompt("URL that ends before /chat/completions", value_proc=_to_url)
        settings[_OTHER_ID] = _with_key({"baseUrl": url})
        model = f"{_OTHER_ID}/{click.prompt('Model')}"
    else:
        if (host := _ask_host(provider, environ)) is not None:
            settings[provider] = host
        model = f"{provider}/{click.prompt('Model', default=first_models[provider])}"
    endpoint = click.confirm("Switch the OpenAI-compatible endpoint on?", default=True)
    return Answers(model, "you chose it", endpoint, settings)


def _to_url(text: str) -> str:
    """Return a URL as the configuration takes it; what it refuses is asked for again."""
    from service.config.types import to_http_url

    try:
        return to_http_url(text.strip())
    except ValueError as error:
        raise click.UsageError(f"It {error}.") from None


def _ask_host(provider: str, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the settings of a known provider, `None` if it needs none: its key is, or will be, in the environment."""
    from service.models.known_hosts import KNOWN_HOSTS

    host = KNOWN_HOSTS[provider]
    if environ.get(host.variable, "").strip():
        click.echo(f"The key is that of {host.variable}; the gateway needs this variable, too.")
        return None
    settings = _with_key({"baseUrl": host.base_url, "api": host.api})
    if "apiKey" not in settings:
        click.echo(f"Set {host.variable} for the gateway, then.")
    return settings if "apiKey" in settings else None


def _with_key(settings: dict[str, Any]) -> dict[str, Any]:
    key = click.prompt("API key (not shown; Enter for none)", default="", hide_input=True, show_default=False).strip()
    return {**settings, "apiKey": key} if key else settings
