"""The configuration's section on models: the places that run them, what they offer, how their failures are borne."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from service.config.problems import Section
from service.config.types import (
    AbsolutePath,
    ApiKey,
    Count,
    HeaderName,
    HeaderValue,
    HttpUrl,
    Positive,
    ProviderId,
    Seconds,
)

#: The dialects a provider may speak.
Api = Literal["openai-completions", "anthropic-messages", "scripted"]
KNOWN_APIS: tuple[str, ...] = get_args(Api)
#: Those of them that somebody runs; the others are for trying the gateway itself.
OFFERED_APIS = tuple(api for api in KNOWN_APIS if api != "scripted")


class ModelCompat(Section):
    """What a model of the OpenAI dialect wants; `None` is as is usual at its host."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    requires_mistral_tool_ids: bool | None = None


class ModelConfig(Section):
    """A model a provider offers."""

    id: str
    name: str | None = None
    input: tuple[Literal["text", "image"], ...] = ("text",)
    context_window: Positive | None = None
    max_tokens: Positive | None = None
    cost: dict[str, Any] = Field(default_factory=dict)
    compat: ModelCompat = ModelCompat()


class LocalServiceConfig(Section):
    """The program that serves a provider on this machine, started when it is first needed.

    `health_url` is `None` for the provider's base URL followed by `/models`; `idle_stop_ms` 0 never stops it.
    """

    command: AbsolutePath
    args: tuple[str, ...] = ()
    cwd: AbsolutePath | None = None
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    health_url: HttpUrl | None = None
    ready_timeout_ms: Positive = 120_000
    idle_stop_ms: Count = 0


class ProviderConfig(Section):
    """A place that runs models and how it is spoken to. `base_url` has no slash at its end.

    OpenClaw knows more dialects than `KNOWN_APIS`: a provider of another one can be described, but not asked.
    """

    api: str = "openai-completions"
    base_url: Annotated[HttpUrl | None, Field(validate_default=True)] = None
    api_key: ApiKey | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)
    timeout_seconds: Seconds = 120
    models: tuple[ModelConfig, ...] = ()
    local_service: LocalServiceConfig | None = None

    @field_validator("base_url")
    @classmethod
    def _require_base_url(cls, url: str | None, info: ValidationInfo) -> str | None:
        api = info.data.get("api", "scripted")
        if url is None and api in KNOWN_APIS and api != "scripted":
            path = "/v1/messages" if api == "anthropic-messages" else "/chat/completions"
            raise ValueError(f'is required with api "{api}": the URL that ends before {path}')
        return url


class RetryConfig(Section):
    """How often a failing model is asked, the first wait and the longest, and when the last attempt may begin."""

    attempts: Positive = 3
    min_delay_ms: Positive = 500
    max_delay_ms: Positive = 10_000
    max_elapsed_ms: Positive = 60_000


class ModelsConfig(Section):
    """The places that run models, by the id that models are named with, and how their failures are borne."""

    retry: RetryConfig = RetryConfig()
    providers: dict[ProviderId, ProviderConfig] = Field(default_factory=dict)
