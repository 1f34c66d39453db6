"""Resolve model references (`provider/model`) to models and their providers.

Providers are opened on first use and cached. The embedded demo model is the default. A configured provider takes
precedence over a known host of the same id. A local model server runs once for all processes with the same state
directory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType

from service.config.agents import AgentConfig
from service.config.models import ProviderConfig
from service.config.roster import Agent, embedding_source_of
from service.config.schema import Config
from service.core.concurrency import run_concurrently
from service.core.dataclass import record, replace
from service.core.errors import GatewayError
from service.core.messages import Message, Sampling, ToolChoice, Usage
from service.core.principal import ADMINISTRATOR, Principal
from service.core.usage import ModelCall, Price
from service.models.dialects import DIALECTS, OFFERED_APIS, open_provider
from service.models.http.proxies import ProxySettings
from service.models.known_hosts import KNOWN_HOSTS, OLLAMA, config_of, ids_with_key
from service.models.local.embedded import EMBEDDED_MODEL, installation_problem, open_embedded_provider
from service.models.local.shared_server import Share, SharedByLocks
from service.models.model_lists import ListingProvider, UnlistedModel, find_unlisted
from service.models.provider import DEFAULT_ANSWER_TOKENS, ModelEnded, ModelRequest, Provider

logger = logging.getLogger("openclaw.models")

EMBEDDED_PROVIDER = "local"
EMBEDDED_REFERENCE = f"{EMBEDDED_PROVIDER}/{EMBEDDED_MODEL}"

#: Providers that are asked for their lists of models at the same time.
_MAX_LISTS = 8

#: Models of one provider that are kept, once asked for.
_MAX_KEPT = 256

_NOTHING: Mapping[str, str] = MappingProxyType({})


@record
class ChosenModel:
    """A resolved model: `ref` is `provider/model`, `id` the provider's own name.

    `max_tokens` limits its answers and `context_window` its whole conversation, both in tokens, `None` if unknown.
    `requires_max_tokens` means that every request has to limit the answer. Without `retried` a failure is final: a
    local model fails the same way twice. Without `calls_functions` it ignores the functions it is offered. `defaults`
    are the agent's, for what an answer's request leaves open. `price` is `None` if it is not known.
    """

    ref: str
    id: str
    provider: Provider
    takes_images: bool
    max_tokens: int | None = None
    context_window: int | None = None
    retried: bool = True
    calls_functions: bool = True
    requires_max_tokens: bool = False
    defaults: Sampling | None = None
    price: Price | None = None

    def answer_tokens(self, asked: int | None) -> int | None:
        """Return the answer limit in tokens where the caller asked for `asked`, `None` for the provider's default.

        The same number is sent and kept free in the context window: at most half of it, to leave room for the request.
        """
        bound = asked or (self.defaults and self.defaults.max_tokens) or self.max_tokens
        bound = bound or (DEFAULT_ANSWER_TOKENS if self.requires_max_tokens else None)
        if bound is None:
            return None
        half = None if self.context_window is None else max(1, self.context_window // 2)
        return min(limit for limit in (bound, self.max_tokens, half) if limit is not None)

    def to_request(self, request: ModelRequest) -> ModelRequest:
        """Return `request` for this model: its id, its answer limit, without provider data of other models."""
        if any(map(self._is_foreign, request.messages[request.unsigned :])):
            messages = (replace(one, provider_data=None) if self._is_foreign(one) else one for one in request.messages)
            request = replace(request, messages=tuple(messages))
        if self.defaults is not None and not request.collected:
            request = replace(request, sampling=request.sampling.over(self.defaults))
        bound = self.answer_tokens(request.sampling.max_tokens)
        if bound != request.sampling.max_tokens:
            request = replace(request, sampling=replace(request.sampling, max_tokens=bound))
        if not self.calls_functions and request.functions:
            request = replace(request, functions=(), tool_choice=ToolChoice())
        return request if request.model == self.id else replace(request, model=self.id)

    def signed(self, end: ModelEnded) -> ModelEnded:
        """Return `end` with its cost, and with its provider data marked as this model's."""
        data = end.provider_data
        if data is not None:
            data = replace(data, model=self.ref)
        return ModelEnded(end.stop_reason, end.tool_calls, self.costed(end.usage), data)

    def costed(self, usage: Usage) -> Usage:
        """Return the counts of one call with its cost, which is unknown if the provider has not counted anything."""
        price, is_counted = self.price, usage.input_tokens or usage.output_tokens
        return Usage(
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
            usage.cache_write_tokens,
            price.cost_of(usage) if price is not None and (is_counted or price.is_free) else None,
        )

    def estimated(self, usage: Usage, estimate: Usage) -> ModelCall:
        """Return a call that its provider has not counted, and that probably used `estimate`."""
        cost_nano = 0 if self.price is None else self.price.cost_of(estimate)
        return ModelCall(self.ref, usage, cost_nano, estimate.input_tokens + estimate.output_tokens)

    def _is_foreign(self, message: Message) -> bool:
        return message.provider_data is not None and message.provider_data.model != self.ref


@record
class _OpenProvider:
    """A provider, and its models by their ids: those that its configuration lists, and some of the others."""

    provider: Provider
    models: dict[str, ChosenModel]


class ModelCatalog:
    """The models of a configuration and of the known hosts.

    `environ` holds the known hosts' keys, OLLAMA_HOST, the proxies and the trusted certificates.
    """

    def __init__(self, config: Config, state_dir: Path, environ: Mapping[str, str] = _NOTHING) -> None:
        agents = config.agents.roster.values() or (AgentConfig(),)
        sources = filter(None, (embedding_source_of(agent, config) for agent in agents))
        remotes = {source.provider_id: source.provider for source in sources if source.provider is not None}
        self._configured = {**config.models.providers, **remotes}
        self._state_dir = state_dir
        self._environ = environ
        self._network = ProxySettings.from_environment(environ)
        self._open: dict[str, _OpenProvider] = {}
        self._adopted: set[str] = set()

    def choose(self, requested: str | None, agent: Agent, principal: Principal = ADMINISTRATOR) -> ChosenModel:
        """Return the model of a run: `requested` (`x-openclaw-model`), else the agent's own.

        Raises `GatewayError`: `model_not_found` for an unknown provider or dialect and for a model that `principal` may
        not use, `model_not_installed` for the embedded model without its packages, `provider_unavailable` for an
        address, a key or a proxy that cannot be used.
        """
        if requested is not None and "/" not in (requested := agent.to_ref(requested)):
            text = f"No model has the alias {requested}. Name it as provider/model, or by an alias of"
            known = ", ".join(sorted(agent.aliases)) or "none is configured"
            raise _not_found(f"{text} agents.defaults.models ({known}).", by_caller=True)
        if requested is not None and not agent.may_use(requested):
            keys = "modelPolicy, agents.defaults.models, models.mode"
            text = f"The model {requested} is not allowed for the agent {agent.id} ({keys})."
            text = f"{text} Use its own model, or one that the configuration allows."
            raise _not_found(text, by_caller=True)
        ref = requested or agent.model or EMBEDDED_REFERENCE
        if not principal.may_use(ref):
            raise _not_found(_not_of_key(requested, agent), by_caller=requested is not None)
        found = self._find(ref, by_caller=requested is not None)
        return _with_defaults(found, agent)

    def choices(
        self, requested: str | None, agent: Agent, principal: Principal = ADMINISTRATOR
    ) -> tuple[ChosenModel, ...]:
        """Return the models of a run in order: that of `choose`, then the agent's fallbacks.

        A model named by the caller has no fallback. Those that `principal` may not use are left out. Fallbacks that
        cannot be used are skipped with a log line. Raises the error of `choose` when no model is left.
        """
        if requested is not None:
            return (self.choose(requested, agent, principal),)
        found: list[ChosenModel] = []
        problem: GatewayError | None = None
        for ref in self.refs_of(agent, principal):
            try:
                found.append(_with_defaults(self._find(ref, by_caller=False), agent))
            except GatewayError as error:
                problem = problem or error
                if agent.fallbacks:
                    logger.warning("agent %s cannot use the model %s: %s", agent.id, ref, error.code)
        if not found:
            raise problem or _not_found(_not_of_key(None, agent), by_caller=False)
        return tuple(found)

    def refs_of(self, agent: Agent, principal: Principal) -> Sequence[str]:
        """Return the models of an agent that `principal` may use, each once, in order."""
        named = dict.fromkeys((agent.model or EMBEDDED_REFERENCE, *agent.fallbacks))
        return [ref for ref in named if principal.may_use(ref)]

    def choose_named(self, ref: str) -> ChosenModel:
        """Return the model `ref`, which the configuration names for a purpose. Raises the errors of `choose`."""
        return self._find(ref, by_caller=False)

    def problem_of(self, ref: str) -> GatewayError | None:
        """Return the error of `choose` for the agent's model `ref`, `None` if it can be used. Nothing is contacted."""
        try:
            self._find(ref, by_caller=False)
        except GatewayError as error:
            return error
        return None

    def describe(self, agent: Agent, principal: Principal = ADMINISTRATOR) -> str:
        """Describe the model that answers `principal` as the agent for people."""
        ref = next(iter(self.refs_of(agent, principal)), agent.model or EMBEDDED_REFERENCE)
        if ref == EMBEDDED_REFERENCE and EMBEDDED_PROVIDER not in self._configured:
            return f"{ref}, a small demo model that is often wrong and uses no tools"
        return ref

    def list_models(self, agents: Iterable[Agent]) -> list[str]:
        """Return every model that the configuration names, as `provider/model`, those of `agents` first."""
        named = [ref for agent in agents for ref in (agent.model or EMBEDDED_REFERENCE, *agent.fallbacks)]
        described = [f"{provider}/{model.id}" for provider, of in self._configured.items() for model in of.models]
        return list(dict.fromkeys([*named, *described]))

    def find_unlisted_models(self, agents: Iterable[Agent]) -> list[UnlistedModel]:
        """Ask the providers for their lists, and return the models of `list_models` that are missing there.

        Providers without a list are skipped, as are those that do not answer within `LIST_SECONDS`.
        """
        refs: dict[ListingProvider, list[str]] = {}
        for ref in self.list_models(agents):
            with suppress(GatewayError):
                provider = self._find(ref, by_caller=False).provider
                if isinstance(provider, ListingProvider):
                    refs.setdefault(provider, []).append(ref)
        jobs = [partial(find_unlisted, provider, of_provider) for provider, of_provider in refs.items()]
        return [unlisted for found in run_concurrently(jobs, _MAX_LISTS) for unlisted in found]

    def missing_installation(self, agents: Iterable[Agent]) -> str | None:
        """Describe what the embedded model lacks to answer for `agents`, with the command that installs it."""
        if EMBEDDED_PROVIDER in self._configured:
            return None
        if all((agent.model or EMBEDDED_REFERENCE) != EMBEDDED_REFERENCE for agent in agents):
            return None
        return installation_problem()

    def adopt(self, older: ModelCatalog) -> None:
        """Take over the open providers of `older` whose configuration is unchanged; it closes the others.

        A model server that took minutes to load keeps running when something else is edited.
        """
        for provider_id, opened in older._open.items():
            if self._configured.get(provider_id) == older._configured.get(provider_id):
                if (unused := self._open.pop(provider_id, None)) is not None:
                    unused.provider.close()
                self._open[provider_id] = opened
                older._adopted.add(provider_id)

    def close(self) -> None:
        """Close every open provider that was not adopted. Idempotent."""
        while self._open:
            provider_id, opened = self._open.popitem()
            if provider_id not in self._adopted:
                opened.provider.close()

    def _find(self, ref: str, *, by_caller: bool) -> ChosenModel:
        provider_id, _, model_id = ref.partition("/")
        opened = self._open.get(provider_id)
        if opened is not None and model_id in opened.models:
            return opened.models[model_id]
        configured = self._configured.get(provider_id)
        if configured is None and ref == EMBEDDED_REFERENCE:
            provider = open_embedded_provider(self._state_dir, self._share_of(EMBEDDED_MODEL))
            model = ChosenModel(ref, model_id, provider, takes_images=False, retried=False, calls_functions=False)
            self._open[provider_id] = _OpenProvider(provider, {model_id: model})
            return model
        try:
            config = configured or config_of(provider_id, self._environ)
            if config is None or not model_id:
                raise _not_found(self._unknown(ref, provider_id), by_caller=by_caller)
            if config.api not in DIALECTS:
                text = f'The provider "{provider_id}" of the model {ref} has an `api` that is not supported'
                raise _not_found(f"{text}. Use one of {', '.join(OFFERED_APIS)}.", by_caller=by_caller)
            if opened is None:
                provider = open_provider(config, self._network, self._share_of(provider_id))
                opened = self._open[provider_id] = _OpenProvider(provider, _listed(provider_id, provider, config))
        except ValueError as error:
            text = f"The model {ref} cannot be reached: {error}."
            raise GatewayError("provider_unavailable", text) from error
        model = opened.models.get(model_id) or _unlisted(ref, model_id, opened.provider, config)
        if len(opened.models) < _MAX_KEPT:
            opened.models[model_id] = model
        return model

    def _share_of(self, service_id: str) -> Share:
        return SharedByLocks(self._state_dir / "services", service_id)

    def _unknown(self, ref: str, provider_id: str) -> str:
        here = dict.fromkeys([*self._configured, *ids_with_key(self._environ), OLLAMA, EMBEDDED_REFERENCE])
        fault = f'No provider "{provider_id}" is configured for the model {ref}.'
        if host := KNOWN_HOSTS.get(provider_id):
            fault = f"The gateway has no key for the model {ref}: set {host.variable} in its environment."
        meant = next((known for known in here if known != provider_id and known.lower() == provider_id.lower()), None)
        hint = f" Did you mean {meant}{ref.removeprefix(provider_id)}?" if meant else ""
        return f"{fault}{hint} Available: {', '.join(here)}."


def _with_defaults(model: ChosenModel, agent: Agent) -> ChosenModel:
    defaults = agent.sampling_of(model.ref)
    return model if defaults is None else replace(model, defaults=defaults)


def _not_of_key(requested: str | None, agent: Agent) -> str:
    if requested is not None:
        return f"This API key may not use the model {requested}."
    return f"This API key may not use the models of the agent {agent.id}. Name one that it may use in x-openclaw-model."


def _not_found(text: str, *, by_caller: bool) -> GatewayError:
    return GatewayError("model_not_found", text, param="x-openclaw-model" if by_caller else "model")


def _listed(provider_id: str, provider: Provider, config: ProviderConfig) -> dict[str, ChosenModel]:
    """Return the models that `config` lists, by their ids; the first counts if one is listed twice."""
    dialect = DIALECTS[config.api]
    return {
        model.id: ChosenModel(
            ref=f"{provider_id}/{model.id}",
            id=model.id,
            provider=provider,
            takes_images="image" in model.input,
            max_tokens=model.max_tokens,
            context_window=model.context_window,
            retried=dialect.retried,
            calls_functions=model.compat.supports_tools,
            requires_max_tokens=dialect.requires_max_tokens,
            price=model.cost.to_price(),
        )
        for model in reversed(config.models)
        if model.id
    }


def _unlisted(ref: str, model_id: str, provider: Provider, config: ProviderConfig) -> ChosenModel:
    """Return a model that is not listed, and is assumed to accept anything."""
    dialect = DIALECTS[config.api]
    retried, bounded = dialect.retried, dialect.requires_max_tokens
    return ChosenModel(ref, model_id, provider, takes_images=True, retried=retried, requires_max_tokens=bounded)
