"""Which model a name means, and the provider that runs it.

Providers are opened when first needed and kept. A model is named `provider/model`; without any configured, the
embedded demo model answers. A configured provider wins over a known host of the same id. A server of this machine runs
once for all processes with the same state directory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from service.config.agents import Agent
from service.config.models import OFFERED_APIS, ProviderConfig
from service.config.schema import Config
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Message, ToolChoice
from service.models.http.proxies import ProxySettings
from service.models.known_hosts import KNOWN_HOSTS, OLLAMA, config_of, ids_with_key
from service.models.local.embedded import EMBEDDED_MODEL, installation_problem, open_embedded_provider
from service.models.local.sharing import Share, SharedByLocks
from service.models.provider import DEFAULT_ANSWER_TOKENS, ModelEnded, ModelEvent, ModelRequest, Provider
from service.models.registry import DIALECTS, open_provider

logger = logging.getLogger("openclaw.models")

EMBEDDED_PROVIDER = "local"
EMBEDDED_REFERENCE = f"{EMBEDDED_PROVIDER}/{EMBEDDED_MODEL}"

_NOTHING: Mapping[str, str] = MappingProxyType({})


@record
class ChosenModel:
    """A model that can be asked: `ref` is `provider/model`, `id` the provider's own name for it.

    `max_tokens` bounds its answers and `context_window` its whole conversation, both in tokens, `None` where nobody
    said. With `wants_bound` its answers have to be bounded by somebody. With `worth_retrying` a failure may pass by
    itself; a model of this machine fails the same way twice. Without `calls_functions` it leaves out those it is
    offered.
    """

    ref: str
    id: str
    provider: Provider
    takes_images: bool
    max_tokens: int | None = None
    context_window: int | None = None
    worth_retrying: bool = True
    calls_functions: bool = True
    wants_bound: bool = False

    def answer_tokens(self, asked: int | None) -> int | None:
        """The most tokens its answer may have where `asked` were asked for, `None` if the provider is to say.

        That is what it is told, and what its window keeps free for it: at most half, so that there is room to ask.
        """
        bound = asked or self.max_tokens or (DEFAULT_ANSWER_TOKENS if self.wants_bound else None)
        if bound is None:
            return None
        half = None if self.context_window is None else max(1, self.context_window // 2)
        return min(limit for limit in (bound, self.max_tokens, half) if limit is not None)

    def to_request(self, request: ModelRequest) -> ModelRequest:
        """`request` put to this model: its id, no longer an answer than it can give, no data of another model."""
        if any(self._is_foreign(message) for message in request.messages):
            messages = (replace(one, provider_data=None) if self._is_foreign(one) else one for one in request.messages)
            request = replace(request, messages=tuple(messages))
        bound = self.answer_tokens(request.sampling.max_tokens)
        if bound != request.sampling.max_tokens:
            request = replace(request, sampling=replace(request.sampling, max_tokens=bound))
        if not self.calls_functions and request.functions:
            request = replace(request, functions=(), tool_choice=ToolChoice())
        return request if request.model == self.id else replace(request, model=self.id)

    def signed(self, event: ModelEvent) -> ModelEvent:
        """`event` of this model's answer, its data in this model's name."""
        if not isinstance(event, ModelEnded) or event.provider_data is None:
            return event
        return replace(event, provider_data=replace(event.provider_data, model=self.ref))

    def _is_foreign(self, message: Message) -> bool:
        return message.provider_data is not None and message.provider_data.model != self.ref


class ModelCatalog:
    """The models of a configuration and of the hosts that need none.

    `environ` has the known hosts' keys, OLLAMA_HOST, the proxies and the trusted certificates.
    """

    def __init__(self, config: Config, state_dir: Path, environ: Mapping[str, str] = _NOTHING) -> None:
        self._configured = config.models.providers
        self._state_dir = state_dir
        self._environ = environ
        self._network = ProxySettings.from_environment(environ)
        self._open: dict[str, Provider] = {}
        self._adopted: set[str] = set()

    def choose(self, requested: str | None, agent: Agent) -> ChosenModel:
        """The model for a run: the one `requested` for it (`x-openclaw-model`), else the agent's own.

        Raises `GatewayError`: `model_not_found` for a provider that is neither configured nor known, or that speaks
        none of our dialects,
        `model_not_installed` for the embedded model without its packages, `provider_unavailable` for an address, a key
        or a proxy in the environment that cannot be used.
        """
        if requested is not None and not agent.may_use(requested):
            text = f"The model {requested} is not allowed: see modelPolicy of the agent {agent.id}, or models.mode."
            raise _not_found(text, by_caller=True)
        return self._find(requested or agent.model or EMBEDDED_REFERENCE, by_caller=requested is not None)

    def choices(self, requested: str | None, agent: Agent) -> tuple[ChosenModel, ...]:
        """The models for a run in the order they are to be asked: the one `choose` means, then the agent's fallbacks.

        A model that a caller names has no fallback: another one is not what was asked for. A fallback that cannot be
        used is left out and the log says why. Raises what `choose` raises when no model is left.
        """
        if requested is not None:
            return (self.choose(requested, agent),)
        found: list[ChosenModel] = []
        problem: GatewayError | None = None
        for ref in dict.fromkeys((agent.model or EMBEDDED_REFERENCE, *agent.fallbacks)):
            try:
                found.append(self._find(ref, by_caller=False))
            except GatewayError as error:
                problem = problem or error
                if agent.fallbacks:
                    logger.warning("agent %s cannot use the model %s: %s", agent.id, ref, error.code)
        if not found and problem is not None:
            raise problem
        return tuple(found)

    def problem_of(self, ref: str) -> GatewayError | None:
        """What `choose` would raise for the agent's model `ref`; a model that can be chosen may still not answer."""
        try:
            self._find(ref, by_caller=False)
        except GatewayError as error:
            return error
        return None

    def describe(self, agent: Agent) -> str:
        """The agent's model in words for people."""
        ref = agent.model or EMBEDDED_REFERENCE
        if ref == EMBEDDED_REFERENCE and EMBEDDED_PROVIDER not in self._configured:
            return f"{ref}, a small demo model that is often wrong and uses no tools"
        return ref

    def list_models(self, agents: Iterable[Agent]) -> list[str]:
        """Every model that the configuration names, as `provider/model`: those of `agents` first, each once."""
        named = [ref for agent in agents for ref in (agent.model or EMBEDDED_REFERENCE, *agent.fallbacks)]
        described = [f"{provider}/{model.id}" for provider, of in self._configured.items() for model in of.models]
        return list(dict.fromkeys([*named, *described]))

    def missing_installation(self, agents: Iterable[Agent]) -> str | None:
        """What keeps the embedded model from answering for one of `agents`, with the command that mends it."""
        if EMBEDDED_PROVIDER in self._configured:
            return None
        if all((agent.model or EMBEDDED_REFERENCE) != EMBEDDED_REFERENCE for agent in agents):
            return None
        return installation_problem()

    def adopt(self, older: ModelCatalog) -> None:
        """Go on with the providers that `older` opened and that are configured the same here; it closes the others.

        A model server that took minutes to load is not started anew because something else was edited.
        """
        for provider_id, provider in older._open.items():
            if self._configured.get(provider_id) == older._configured.get(provider_id):
                if (unused := self._open.pop(provider_id, None)) is not None:
                    unused.close()
                self._open[provider_id] = provider
                older._adopted.add(provider_id)

    def close(self) -> None:
        """Close every provider that was opened and not adopted. Twice is a no-op."""
        while self._open:
            provider_id, provider = self._open.popitem()
            if provider_id not in self._adopted:
                provider.close()

    def _find(self, ref: str, *, by_caller: bool) -> ChosenModel:
        provider_id, _, model_id = ref.partition("/")
        configured = self._configured.get(provider_id)
        if configured is None and ref == EMBEDDED_REFERENCE:
            provider = self._open.get(provider_id)
            provider = provider or open_embedded_provider(self._state_dir, self._share_of(EMBEDDED_MODEL))
            self._open[provider_id] = provider
            return ChosenModel(ref, model_id, provider, takes_images=False, worth_retrying=False, calls_functions=False)
        try:
            config = configured or config_of(provider_id, self._environ)
            if config is None or not model_id:
                raise _not_found(self._unknown(ref, provider_id), by_caller=by_caller)
            if config.api not in DIALECTS:
                text = f'The provider "{provider_id}" of the model {ref} speaks an `api` that this gateway does not'
                raise _not_found(f"{text}. There are: {', '.join(OFFERED_APIS)}.", by_caller=by_caller)
            if provider_id not in self._open:
                self._open[provider_id] = open_provider(config, self._network, self._share_of(provider_id))
        except ValueError as error:
            text = f"The model {ref} cannot be reached: {error}."
            raise GatewayError("provider_unavailable", text) from error
        return _chosen(ref, model_id, self._open[provider_id], config)

    def _share_of(self, service_id: str) -> Share:
        return SharedByLocks(self._state_dir / "services", service_id)

    def _unknown(self, ref: str, provider_id: str) -> str:
        here = dict.fromkeys([*self._configured, *ids_with_key(self._environ), OLLAMA, EMBEDDED_REFERENCE])
        fault = f'No provider "{provider_id}" is configured for the model {ref}.'
        if host := KNOWN_HOSTS.get(provider_id):
            fault = f"The gateway has no key for the model {ref}: set {host.variable} in its environment."
        meant = next((known for known in here if known != provider_id and known.lower() == provider_id.lower()), None)
        hint = f" Did you mean {meant}{ref.removeprefix(provider_id)}?" if meant else ""
        return f"{fault}{hint} There are: {', '.join(here)}."


def _not_found(text: str, *, by_caller: bool) -> GatewayError:
    return GatewayError("model_not_found", text, param="x-openclaw-model" if by_caller else "model")


def _chosen(ref: str, model_id: str, provider: Provider, config: ProviderConfig) -> ChosenModel:
    listed = next((model for model in config.models if model.id == model_id), None)
    return ChosenModel(
        ref=ref,
        id=model_id,
        provider=provider,
        # A model that nobody described may take pictures: its provider decides.
        takes_images=listed is None or "image" in listed.input,
        max_tokens=None if listed is None else listed.max_tokens,
        context_window=None if listed is None else listed.context_window,
        worth_retrying=config.api != "scripted",
        calls_functions=listed is None or listed.compat.supports_tools,
        wants_bound=config.api == "anthropic-messages",
    )
