"""Which model a name means, and the provider that runs it.

Providers are opened when first needed and kept. A model is named `provider/model`; without any configured, the
embedded demo model answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.agents import Agent
from service.config import Config, ProviderConfig
from service.embedded_model import EMBEDDED_MODEL, installation_problem, open_embedded_provider
from service.errors import GatewayError
from service.providers import Provider
from service.providers.local_service import LocalService, LocalServiceProvider
from service.providers.openai import OpenAIProvider
from service.providers.scripted import ScriptedProvider

EMBEDDED_PROVIDER = "local"
EMBEDDED_REFERENCE = f"{EMBEDDED_PROVIDER}/{EMBEDDED_MODEL}"


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """A model that can be asked: `ref` is `provider/model`, `id` the provider's own name for it."""

    ref: str
    id: str
    provider: Provider
    takes_images: bool


class ModelCatalog:
    """The models of a configuration."""

    def __init__(self, config: Config, state_dir: Path) -> None:
        self._configured = config.models.providers
        self._state_dir = state_dir
        self._open: dict[str, Provider] = {}

    def choose(self, requested: str | None, agent: Agent) -> ChosenModel:
        """The model for a run: the one `requested` for it (`x-openclaw-model`), else the agent's own.

        Raises `GatewayError`: `model_not_found` for a provider that is not configured, `model_not_installed` for the
        embedded model without its packages.
        """
        ref = requested or agent.model or EMBEDDED_REFERENCE
        provider_id, _, model_id = ref.partition("/")
        if provider_id not in self._configured and ref != EMBEDDED_REFERENCE:
            raise self._unknown(ref, provider_id, by_caller=requested is not None)
        return ChosenModel(ref, model_id, self._provider(provider_id), self._takes_images(provider_id, model_id))

    def describe(self, agent: Agent) -> str:
        """The agent's model in words for people."""
        ref = agent.model or EMBEDDED_REFERENCE
        if ref == EMBEDDED_REFERENCE and EMBEDDED_PROVIDER not in self._configured:
            return f"{ref}, a small demo model that is often wrong"
        return ref

    def missing_installation(self, agents: Iterable[Agent]) -> str | None:
        """What keeps the embedded model from answering for one of `agents`, with the command that mends it."""
        if EMBEDDED_PROVIDER in self._configured:
            return None
        if all((agent.model or EMBEDDED_REFERENCE) != EMBEDDED_REFERENCE for agent in agents):
            return None
        return installation_problem()

    def close(self) -> None:
        """Close every provider that was opened. Twice is a no-op."""
        while self._open:
            self._open.popitem()[1].close()

    def _provider(self, provider_id: str) -> Provider:
        provider = self._open.get(provider_id)
        if provider is None:
            configured = self._configured.get(provider_id)
            provider = open_embedded_provider(self._state_dir) if configured is None else _open_provider(configured)
            self._open[provider_id] = provider
        return provider

    def _takes_images(self, provider_id: str, model_id: str) -> bool:
        configured = self._configured.get(provider_id)
        if configured is None:
            return False
        listed = next((model for model in configured.models if model.id == model_id), None)
        return listed is None or "image" in listed.input

    def _unknown(self, ref: str, provider_id: str, *, by_caller: bool) -> GatewayError:
        known = ", ".join([*self._configured, EMBEDDED_REFERENCE])
        text = f'No provider "{provider_id}" is configured for the model {ref}. There are: {known}.'
        return GatewayError("model_not_found", text, param="x-openclaw-model" if by_caller else "model")


def _open_provider(config: ProviderConfig) -> Provider:
    if config.api == "scripted":
        return ScriptedProvider()
    provider: Provider = OpenAIProvider.from_config(config)
    if config.local_service is not None:
        provider = LocalServiceProvider(provider, LocalService.from_config(config.local_service, config.base_url))
    return provider
