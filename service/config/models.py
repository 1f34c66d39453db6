"""The configuration's section on models: the providers that run them, and retries."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from service.config.problems import Section
from service.config.types import (
    AbsolutePath,
    ApiKey,
    Bool,
    Count,
    HeaderName,
    HeaderValue,
    HttpUrl,
    Positive,
    ProviderId,
    Seconds,
)
from service.core.usage import Price

#: The dialect of the built-in test provider, which has no address.
SCRIPTED_API = "scripted"


class ModelCompat(Section):
    """Capabilities of a model that its host does not announce."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    """Name of the field that limits an answer. Unset: as the host expects."""
    requires_mistral_tool_ids: bool | None = None
    """Send tool call ids of nine letters and digits. Unset: as the host expects."""
    supports_tools: Bool = True
    """`false`: offer the model no tools, and refuse requests that bring functions."""


#: US dollars for a million tokens.
_Dollars = Annotated[float, Field(strict=True, ge=0, le=1_000_000, allow_inf_nan=False)]

#: A dollar for a million tokens, in pico-dollars for one.
_PICO_PER_DOLLAR = 1_000_000


class CostConfig(Section):
    """Prices of a model in US dollars for a million tokens. Without `input` and `output` its cost is not known."""

    input: _Dollars | None = None
    """Input that was not read from a cache."""
    output: _Dollars | None = None
    """Output, reasoning included."""
    cache_read: _Dollars | None = None
    """Input that the provider read from its cache. Unset: as `input`."""
    cache_write: _Dollars | None = None
    """Input that the provider put into its cache. Unset: as `input`."""
    tiered_pricing: tuple[dict[str, Any], ...] = ()
    """Prices by the length of the input, which are not used: with them the cost of the model is not known."""

    def to_price(self) -> Price | None:
        """Return the price, `None` if it is not known."""
        if self.input is None or self.output is None or self.tiered_pricing:
            return None
        cached = (self.input if price is None else price for price in (self.cache_read, self.cache_write))
        return Price(*(round(price * _PICO_PER_DOLLAR) for price in (self.input, self.output, *cached)))


class ModelConfig(Section):
    """A model of a provider."""

    id: str
    """The provider's name for the model."""
    name: str | None = None
    """Name for people."""
    input: tuple[Literal["text", "image"], ...] = ("text",)
    """The input that the model accepts. A model that is not listed is assumed to accept anything."""
    context_window: Positive | None = None
    """Tokens of a whole conversation, the answer included. Longer ones are shortened."""
    max_tokens: Positive | None = None
    """Most tokens of one answer."""
    cost: CostConfig = CostConfig()
    """Prices in US dollars for a million tokens."""
    compat: ModelCompat = ModelCompat()
    """Deviations of the model's API, where its host does not say."""


class LocalServiceConfig(Section):
    """A program that serves a provider on this machine, started when it is first needed."""

    command: AbsolutePath
    """The program to start."""
    args: tuple[str, ...] = ()
    """Arguments of the program."""
    cwd: AbsolutePath | None = None
    """Directory to start the program in."""
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    """Environment variables of the program."""
    health_url: HttpUrl | None = None
    """URL that answers once the program is ready. Unset: `baseUrl` followed by /models."""
    ready_timeout_ms: Positive = 120_000
    """Time limit for its start, in milliseconds."""
    idle_stop_ms: Count = 0
    """Stop it after this time without a request, in milliseconds; 0 never stops it."""


class ProviderConfig(Section):
    """A provider of models."""

    api: str = "openai-completions"
    """Wire format: "openai-completions" or "anthropic-messages". A provider with another one is not used."""
    base_url: HttpUrl | None = None
    """URL that ends before /chat/completions or /v1/messages."""
    api_key: ApiKey | None = None
    """The key. Unset: none is sent."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)
    """HTTP headers to send."""
    timeout_seconds: Seconds = 120
    """Longest wait for the first and for each further part of an answer."""
    models: tuple[ModelConfig, ...] = ()
    """The provider's models. Models that are not listed can be used, too."""
    local_service: LocalServiceConfig | None = None
    """A program that serves the provider on this machine, started when it is first needed."""


class RetryConfig(Section):
    """Retries of a failing model."""

    attempts: Positive = 3
    """Attempts with one model, the first included."""
    min_delay_ms: Positive = 500
    """First wait in milliseconds; it doubles each time."""
    max_delay_ms: Positive = 10_000
    """Longest wait in milliseconds."""
    max_elapsed_ms: Positive = 60_000
    """Time after which no further attempt begins, in milliseconds."""


class ModelsConfig(Section):
    """Model providers, and retries."""

    mode: Literal["merge", "replace"] = "merge"
    """"replace": callers may choose listed models only, and of known hosts none that is not configured."""
    retry: RetryConfig = RetryConfig()
    """Retries of a failing model."""
    providers: dict[ProviderId, ProviderConfig] = Field(default_factory=dict)
    """Providers by the id that their models are named with."""
