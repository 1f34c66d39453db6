"""The model dialects: one row for each, implemented in a package of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.config.models import SCRIPTED_API, ProviderConfig
from service.core.dataclass import record
from service.models.anthropic.provider import AnthropicProvider
from service.models.http.proxies import ProxySettings
from service.models.local.server import LocalService, LocalServiceProvider
from service.models.local.shared_server import Share
from service.models.openai.provider import OpenAIProvider
from service.models.provider import Provider
from service.models.scripted import ScriptedProvider


@record
class Dialect:
    """A wire dialect: `open` creates its provider and `path` is its endpoint below the base URL.

    With `requires_max_tokens` every request has to limit the answer. Without `retried` a failure is final. A dialect
    that is not `offered` is for tests and not listed in messages.
    """

    open: Callable[[ProviderConfig, ProxySettings], Provider]
    path: str
    requires_max_tokens: bool = False
    retried: bool = True
    offered: bool = True


#: By the `api` of a provider. A new dialect is a package and a row.
DIALECTS: Mapping[str, Dialect] = {
    "openai-completions": Dialect(OpenAIProvider.from_config, OpenAIProvider.PATH),
    "anthropic-messages": Dialect(AnthropicProvider.from_config, AnthropicProvider.PATH, requires_max_tokens=True),
    SCRIPTED_API: Dialect(lambda _config, _network: ScriptedProvider(), "", retried=False, offered=False),
}
OFFERED_APIS = tuple(api for api, dialect in DIALECTS.items() if dialect.offered)


def open_provider(config: ProviderConfig, network: ProxySettings, share: Share | None = None) -> Provider:
    """Open the provider of a `models.providers` entry, including its local service. Nothing is contacted.

    `config.api` is one of `DIALECTS`. Processes with the same `share` run the service once. Raises `ValueError` for an
    address, a proxy or a certificate file that cannot be used.
    """
    provider = DIALECTS[config.api].open(config, network)
    if config.local_service is None:
        return provider
    return LocalServiceProvider(provider, LocalService.from_config(config.local_service, config.base_url, share))
