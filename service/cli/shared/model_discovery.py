"""Available models: configured ones, known hosts with a key, a running Ollama, the embedded one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from service.cli.client.http import Unreachable, get_json
from service.config.roster import Roster
from service.config.schema import Config
from service.core.dataclass import record
from service.models.catalog import EMBEDDED_PROVIDER, EMBEDDED_REFERENCE
from service.models.known_hosts import KNOWN_HOSTS, OLLAMA, config_of, ids_with_key
from service.models.local.embedded import installation_problem

#: Placeholder in a reference for any model of the provider.
ANY_MODEL = "<model>"

_OLLAMA_SECONDS = 1.0


@record
class AvailableModel:
    """A model, or with `ANY_MODEL` all of a provider; `problem` is the reason why it is unavailable."""

    ref: str
    source: str
    problem: str | None = None
    agents: tuple[str, ...] = ()
    input: tuple[str, ...] | None = None
    context_window: int | None = None


def find_models(config: Config, environ: Mapping[str, str]) -> list[AvailableModel]:
    """Return all available models, including those that agents use."""
    found = {model.ref: model for model in _iter_offered(config, environ)}
    for agent in Roster.from_config(config).agents:
        for ref in (agent.model or EMBEDDED_REFERENCE, *agent.fallbacks):
            model = found.get(ref) or _from_reference(ref, found)
            found[ref] = replace(model, agents=(*model.agents, agent.id))
    return list(found.values())


def find_ollama_models(environ: Mapping[str, str]) -> list[str]:
    """Return the model ids of a running Ollama; empty without one."""
    try:
        config = config_of(OLLAMA, environ)
        _, body = get_json(f"{config.base_url if config else ''}/models", timeout_seconds=_OLLAMA_SECONDS)
        return [str(item["id"]) for item in body["data"]]
    except (Unreachable, ValueError, LookupError, TypeError):
        return []


def _iter_offered(config: Config, environ: Mapping[str, str]) -> Iterator[AvailableModel]:
    for provider_id, provider in config.models.providers.items():
        for model in provider.models:
            ref = f"{provider_id}/{model.id}"
            yield AvailableModel(ref, "configuration", input=model.input, context_window=model.context_window)
        if not provider.models:
            yield AvailableModel(f"{provider_id}/{ANY_MODEL}", "configuration")
    for provider_id in ids_with_key(environ):
        if provider_id not in config.models.providers:
            yield AvailableModel(f"{provider_id}/{ANY_MODEL}", KNOWN_HOSTS[provider_id].variable)
    if OLLAMA not in config.models.providers:
        yield from (AvailableModel(f"{OLLAMA}/{name}", "Ollama") for name in find_ollama_models(environ))
    if EMBEDDED_PROVIDER not in config.models.providers:
        yield AvailableModel(EMBEDDED_REFERENCE, "embedded demo model", installation_problem(), input=("text",))


def _from_reference(ref: str, found: Mapping[str, AvailableModel]) -> AvailableModel:
    """Describe an unlisted model, which its provider may have all the same."""
    provider_id = ref.partition("/")[0]
    whole = found.get(f"{provider_id}/{ANY_MODEL}")
    if whole is not None:
        return AvailableModel(ref, whole.source)
    if any(other.startswith(f"{provider_id}/") and other != EMBEDDED_REFERENCE for other in found):
        return AvailableModel(
            ref, next(model.source for other, model in found.items() if other.startswith(provider_id))
        )
    host = KNOWN_HOSTS.get(provider_id)
    problem = f"{host.variable} is not set" if host else f"unknown provider {provider_id}"
    return AvailableModel(ref, "agents", problem)
