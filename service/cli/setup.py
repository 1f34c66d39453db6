"""`openclaw setup`: write a first configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import click

from service.cli.shared.common import json_option, pass_locations, print_json
from service.config.source import Locations

_FILE = """// Configuration of the OpenClaw gateway. Edit it, or use `openclaw config set`; a running gateway follows.
{
  gateway: {
    auth: {
      mode: "token",
      token: %(token)s, // clients send it as `Authorization: Bearer <token>`
    },
    // OpenAI's API at /v1: on or off
    http: { endpoints: { chatCompletions: { enabled: %(enabled)s } } },
  },
  agents: {
    defaults: {
      // `openclaw models list` shows the available models
      model: %(model)s,
    },
  },
}
"""

#: First model by provider: a general one under a name that the provider keeps stable.
_FIRST_MODELS = {
    "openai": "gpt-5-mini",
    "anthropic": "claude-sonnet-4-5",
    "openrouter": "openrouter/auto",
    "groq": "llama-3.3-70b-versatile",
    "mistral": "mistral-large-latest",
    "deepseek": "deepseek-chat",
    "google": "gemini-2.5-flash",
}

#: Parts of the names of embedding models.
_EMBEDDING_MARKS = ("embed", "minilm", "bge-")


@click.command()
@click.option("--endpoint", is_flag=True, help="Enable the OpenAI-compatible endpoint.")
@click.option("--model", metavar="PROVIDER/MODEL", help="The agents' model; by default the best one found.")
@json_option
@pass_locations
def setup(locations: Locations, model: str | None, *, endpoint: bool, as_json: bool) -> None:
    """Write a first configuration with a token and a model.

    The model is chosen by API keys in the environment, then by a running Ollama; otherwise it is the embedded demo
    model. An existing file is not changed.
    """
    import secrets

    from service.config.loading import check_config_text
    from service.config.saving import create_file
    from service.config.source import escape_variables
    from service.gateway.startup_checks import check_startable

    path = locations.config_path
    _check_absent(path)
    chosen, reason = (model, "you named it") if model is not None else _choose_model(os.environ)
    values = {"token": secrets.token_urlsafe(32), "enabled": endpoint, "model": escape_variables(chosen)}
    text = _FILE % {key: json.dumps(value) for key, value in values.items()}
    checked = check_config_text(text, "The new configuration", os.environ)
    check_startable(checked.config, locations, os.environ)
    if not create_file(locations, text):
        _check_absent(path)
    hint = _install_hint(chosen)
    if as_json:
        print_json({"ok": True, "path": str(path), "endpoint": endpoint, "model": chosen, "reason": reason})
    else:
        click.echo(f"Wrote {path} with a new token.")
        click.echo(f"  model     {chosen}, because {reason}")
        click.echo(f"  endpoint  {'enabled' if endpoint else 'disabled; `openclaw setup --endpoint` enables it'}")
        click.echo("\n".join(["Next:", *([f"  {hint}"] if hint else []), "  openclaw gateway"]))


def _check_absent(path: Path) -> None:
    if path.exists() or path.is_symlink():
        text = f"{path} already exists. Change it with `openclaw config set`, or move it away."
        raise click.ClickException(text)


def _choose_model(environ: Mapping[str, str]) -> tuple[str, str]:
    from service.cli.shared.model_discovery import find_ollama_models
    from service.models.catalog import EMBEDDED_REFERENCE
    from service.models.known_hosts import KNOWN_HOSTS, OLLAMA, ids_with_key

    for provider_id in ids_with_key(environ):
        if provider_id in _FIRST_MODELS:
            return f"{provider_id}/{_FIRST_MODELS[provider_id]}", f"{KNOWN_HOSTS[provider_id].variable} is set"
    for name in filter(_is_chat_model, find_ollama_models(environ)):
        return f"{OLLAMA}/{name}", "Ollama is running and has it"
    return (
        EMBEDDED_REFERENCE,
        "no API key and no Ollama model was found; this is a small demo model that is often wrong",
    )


def _is_chat_model(name: str) -> bool:
    """Exclude embedding models, which Ollama lists with the others."""
    return not any(word in name.lower() for word in _EMBEDDING_MARKS)


def _install_hint(model: str) -> str | None:
    from service.models.catalog import EMBEDDED_REFERENCE
    from service.models.local.embedded import installation_problem
    from service.models.local.weights import INSTALL_COMMAND

    return INSTALL_COMMAND if model == EMBEDDED_REFERENCE and installation_problem() else None
