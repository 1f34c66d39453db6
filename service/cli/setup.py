"""`openclaw setup`: write a first configuration."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from service.cli.shared.common import json_option, pass_locations, print_json
from service.config.source import Locations

if TYPE_CHECKING:
    from service.cli.shared.setup_questions import Answers
    from service.config.schema import Config

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
  },%(providers)s
}
"""

#: The part with the providers, if there are any.
_PROVIDERS = """
  models: {
    providers: %s,
  },"""

_CALL = """curl -sS %(url)s/v1/chat/completions \\
  -H "Authorization: Bearer $(%(command)s config get gateway.auth.token)" \\
  -H 'Content-Type: application/json' \\
  -d '{"model": "openclaw", "messages": [{"role": "user", "content": "hi"}]}'"""

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
@click.option("--no-input", is_flag=True, help="Ask nothing, as without a terminal.")
@json_option
@pass_locations
def setup(locations: Locations, model: str | None, *, endpoint: bool, no_input: bool, as_json: bool) -> None:
    """Write a first configuration with a token and a model.

    On a terminal it asks for provider, key, model and endpoint, unless options say so. Otherwise the model is chosen by
    API keys in the environment, then by a running Ollama, or else is the embedded demo model. An existing file is not
    changed.
    """
    _check_absent(locations)
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not (as_json or no_input or endpoint or model is not None)
    answers = _ask() if asks else _choose(model, endpoint=endpoint)
    config = _write(locations, answers)
    if as_json:
        chosen = {"endpoint": answers.endpoint, "model": answers.model, "reason": answers.reason}
        print_json({"ok": True, "path": str(locations.config_path), **chosen})
        return
    enabling = f"{locations.command} config set gateway.http.endpoints.chatCompletions.enabled true"
    click.echo(f"Wrote {locations.config_path} with a new token.")
    click.echo(f"  model     {answers.model}, because {answers.reason}")
    click.echo(f"  endpoint  {'enabled' if answers.endpoint else f'disabled; `{enabling}` enables it'}")
    hint = _install_hint(answers.model)
    click.echo("\n".join(["Next:", *([f"  {hint}"] if hint else []), f"  {locations.command} gateway"]))
    _print_call(locations, config, is_enabled=answers.endpoint)


def _ask() -> Answers:
    from service.cli.shared.model_discovery import find_ollama_models
    from service.cli.shared.setup_questions import ask

    found, _ = _choose_model(os.environ)
    return ask(found, _FIRST_MODELS, list(filter(_is_chat_model, find_ollama_models(os.environ))), os.environ)


def _choose(model: str | None, *, endpoint: bool) -> Answers:
    from service.cli.shared.setup_questions import Answers

    chosen, reason = (model, "you named it") if model is not None else _choose_model(os.environ)
    return Answers(chosen, reason, endpoint, {})


def _write(locations: Locations, answers: Answers) -> Config:
    """Write the configuration and return it. Raises `ConfigError`, and `click.ClickException` if there is one."""
    import secrets

    from service.config.loading import check_config_text
    from service.config.saving import create_file
    from service.config.source import escape_variables
    from service.gateway.startup_checks import check_startable

    providers = {
        name: {key: escape_variables(value) for key, value in one.items()} for name, one in answers.providers.items()
    }
    values = {
        "token": json.dumps(secrets.token_urlsafe(32)),
        "enabled": json.dumps(answers.endpoint),
        "model": json.dumps(escape_variables(answers.model)),
        "providers": _PROVIDERS % json.dumps(providers) if providers else "",
    }
    text = _FILE % values
    checked = check_config_text(text, "The new configuration", os.environ)
    check_startable(checked.config, locations, os.environ)
    if not create_file(locations, text):
        _check_absent(locations)
    return checked.config


def _print_call(locations: Locations, config: Config, *, is_enabled: bool) -> None:
    from service.config.loading import resolve_port

    port = resolve_port(None, os.environ, config, locations.dev)
    click.echo(f"The token is in {locations.config_path}: {locations.command} config get gateway.auth.token")
    if is_enabled:
        click.echo("Then, in a second terminal:\n")
        click.echo(_CALL % {"url": f"http://127.0.0.1:{port}", "command": locations.command})


def _check_absent(locations: Locations) -> None:
    path = locations.config_path
    if path.exists() or path.is_symlink():
        text = f"{path} already exists. Change it with `{locations.command} config set`, or move it away."
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
