"""The models within reach: configured ones, hosts whose key is here, a running Ollama, the embedded one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from service.cli.http_client import Unreachable, get_json
from service.config.agents import Roster
from service.config.schema import Config
from service.core.dataclass import record
from service.models.catalog import EMBEDDED_PROVIDER, EMBEDDED_REFERENCE
from service.models.known_hosts import KNOWN_HOSTS, OLLAMA, config_of, ids_with_key
from service.models.local.embedded import installation_problem

#: In a reference: whatever the provider offers.
ANY_MODEL = "<model>"

_OLLAMA_SECONDS = 1.0


@record
class FoundModel:
    """A model that can be named, or with `ANY_MODEL` all of a provider; `problem` says why it cannot answer now."""

    ref: str
    source: str
    problem: str | None = None
    agents: tuple[str, ...] = ()
    input: tuple[str, ...] | None = None
    context_window: int | None = None


def find_models(config: Config, environ: Mapping[str, str]) -> list[FoundModel]:
    """Every model within reach, those that agents use among them, however they are known."""
    found = {model.ref: model for model in _offered(config, environ)}
    for agent in Roster.from_config(config).agents:
        for ref in (agent.model or EMBEDDED_REFERENCE, *agent.fallbacks):
            model = found.get(ref) or _named(ref, found)
            found[ref] = replace(model, agents=(*model.agents, agent.id))
    return list(found.values())


def find_ollama_models(environ: Mapping[str, str]) -> list[str]:
    """The ids of the models that a running Ollama has; none when nothing answers like one."""
    try:
        config = config_of(OLLAMA, environ)
        _, body = get_json(f"{config.base_url if config else ''}/models", timeout_seconds=_OLLAMA_SECONDS)
        return [str(item["id"]) for item in body["data"]]
    except (Unreachable, ValueError, LookupError, TypeError):
        return []


def _offered(config: Config, environ: Mapping[str, str]) -> Iterator[FoundModel]:
    for provider_id, provider in config.models.providers.items():
        for model in provider.models:
            ref = f"{provider_id}/{model.id}"
            yield FoundModel(ref, "configuration", input=model.input, context_window=model.context_window)
        if not provider.models:
            yield FoundModel(f"{provider_id}/{ANY_MODEL}", "configuration")
    for provider_id in ids_with_key(environ):
        if provider_id not in config.models.providers:
            yield FoundModel(f"{provider_id}/{ANY_MODEL}", KNOWN_HOSTS[provider_id].variable)
    if OLLAMA not in config.models.providers:
        yield from (FoundModel(f"{OLLAMA}/{name}", "Ollama") for name in find_ollama_models(environ))
    if EMBEDDED_PROVIDER not in config.models.providers:
        yield FoundModel(EMBEDDED_REFERENCE, "embedded demo model", installation_problem(), input=("text",))


def _named(ref: str, found: Mapping[str, FoundModel]) -> FoundModel:
    """A model that nobody listed: its provider may have it all the same."""
    provider_id = ref.partition("/")[0]
    whole = found.get(f"{provider_id}/{ANY_MODEL}")
    if whole is not None:
        return FoundModel(ref, whole.source)
    if any(other.startswith(f"{provider_id}/") and other != EMBEDDED_REFERENCE for other in found):
        return FoundModel(ref, next(model.source for other, model in found.items() if other.startswith(provider_id)))
    host = KNOWN_HOSTS.get(provider_id)
    problem = f"{host.variable} is not set" if host else f"nothing answers as {provider_id}"
    return FoundModel(ref, "agents", problem)
