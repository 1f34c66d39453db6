"""The dialects that providers speak: one row for each, and the module that knows it beside this file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.config.models import ProviderConfig
from service.models.anthropic.provider import AnthropicProvider
from service.models.http.proxies import ProxySettings
from service.models.local.server import LocalService, LocalServiceProvider
from service.models.local.sharing import Share
from service.models.openai.provider import OpenAIProvider
from service.models.provider import Provider
from service.models.scripted import ScriptedProvider

#: How a provider of each dialect is opened. A new dialect is its row here, named in `configmodels.Api`.
DIALECTS: Mapping[str, Callable[[ProviderConfig, ProxySettings], Provider]] = {
    "openai-completions": OpenAIProvider.from_config,
    "anthropic-messages": AnthropicProvider.from_config,
    "scripted": lambda _config, _network: ScriptedProvider(),
}


def open_provider(config: ProviderConfig, network: ProxySettings, share: Share | None = None) -> Provider:
    """The provider a `models.providers` entry describes, its local service included; nothing is contacted yet.

    `config.api` is one of `DIALECTS`. The processes with the same `share` run that service once. Raises `ValueError`
    for an address, a proxy or a certificate file that cannot be used.
    """
    provider = DIALECTS[config.api](config, network)
    if config.local_service is None:
        return provider
    return LocalServiceProvider(provider, LocalService.from_config(config.local_service, config.base_url, share))
