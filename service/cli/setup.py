"""`openclaw setup`: a first configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import click

from service.cli.common import json_option, pass_locations, print_json
from service.config.source import Locations

_FILE = """// OpenClaw Gateway reads this. Edit it, or use `openclaw config set`: a running gateway follows.
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
      // `openclaw models list` shows what can be named here
      model: %(model)s,
    },
  },
}
"""

#: A model to begin with, by the provider whose key is there; a general one that its provider keeps under this name.
_FIRST_MODELS = {
    "openai": "gpt-5-mini",
    "anthropic": "claude-sonnet-4-5",
    "openrouter": "openrouter/auto",
    "groq": "llama-3.3-70b-versatile",
    "mistral": "mistral-large-latest",
    "deepseek": "deepseek-chat",
    "google": "gemini-2.5-flash",
}

#: What the names of models hold that embed texts.
_OF_VECTORS = ("embed", "minilm", "bge-")


@click.command()
@click.option("--endpoint", is_flag=True, help="Switch the OpenAI-compatible endpoint on.")
@click.option("--model", metavar="PROVIDER/MODEL", help="The agents' model; without it the best that is found.")
@json_option
@pass_locations
def setup(locations: Locations, model: str | None, *, endpoint: bool, as_json: bool) -> None:
    """Write a first configuration: a token, the endpoint if asked for, a model out of what is found.

    Looks for keys in the environment, then for a running Ollama; else the embedded demo model answers. A file that is
    there already is left alone.
    """
    import secrets

    from service.config.loading import check_config_text
    from service.config.saving import create_file
    from service.config.source import escape_variables
    from service.gateway.startup_checks import check_startable

    path = locations.config_path
    _refuse_another(path)
    chosen, reason = (model, "you named it") if model is not None else _choose_model(os.environ)
    values = {"token": secrets.token_urlsafe(32), "enabled": endpoint, "model": escape_variables(chosen)}
    text = _FILE % {key: json.dumps(value) for key, value in values.items()}
    checked = check_config_text(text, "What would be written", os.environ)
    check_startable(checked.config, locations, os.environ)
    if not create_file(locations, text):
        _refuse_another(path)
    missing = _missing(chosen)
    if as_json:
        print_json({"ok": True, "path": str(path), "endpoint": endpoint, "model": chosen, "reason": reason})
    else:
        click.echo(f"Wrote {path}, with a token of its own.")
        click.echo(f"  model     {chosen}, because {reason}")
        click.echo(f"  endpoint  {'on' if endpoint else 'off; --endpoint would have switched it on'}")
        click.echo("\n".join(["Next:", *([f"  {missing}"] if missing else []), "  openclaw gateway"]))


def _refuse_another(path: Path) -> None:
    if path.exists() or path.is_symlink():
        text = f"{path} is there already. Change it with `openclaw config set`, or move it away."
        raise click.ClickException(text)


def _choose_model(environ: Mapping[str, str]) -> tuple[str, str]:
    from service.cli.model_discovery import find_ollama_models
    from service.models.catalog import EMBEDDED_REFERENCE
    from service.models.known_hosts import KNOWN_HOSTS, OLLAMA, ids_with_key

    for provider_id in ids_with_key(environ):
        if provider_id in _FIRST_MODELS:
            return f"{provider_id}/{_FIRST_MODELS[provider_id]}", f"{KNOWN_HOSTS[provider_id].variable} is set"
    for name in filter(_may_talk, find_ollama_models(environ)):
        return f"{OLLAMA}/{name}", "Ollama is running and has it"
    return EMBEDDED_REFERENCE, "neither a key nor a model of Ollama's was found: a small demo model that is often wrong"


def _may_talk(name: str) -> bool:
    """Not so the models that only make vectors, which Ollama lists among the others."""
    return not any(word in name.lower() for word in _OF_VECTORS)


def _missing(model: str) -> str | None:
    from service.models.catalog import EMBEDDED_REFERENCE
    from service.models.local.embedded import installation_problem
    from service.models.local.weights import INSTALL_COMMAND

    return INSTALL_COMMAND if model == EMBEDDED_REFERENCE and installation_problem() else None
