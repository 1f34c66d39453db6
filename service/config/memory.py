"""OpenClaw's settings for its search in memory, of which this gateway takes the model for embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from service.config.models import ProviderConfig
from service.config.problems import Section
from service.config.types import ApiKey, Bool, HeaderName, HeaderValue, HttpUrl
from service.core.dataclass import record

_DEFAULT_PROVIDER = "openai"
#: Names that need a `remote`, or mean that there is no model.
_NO_PROVIDERS = ("openai-compatible", "none", "local")


class MemoryRemoteConfig(Section):
    """An address for embeddings that is not that of the provider."""

    base_url: HttpUrl | None = None
    """URL that ends before /embeddings. With it, key and headers are those beside it."""
    api_key: ApiKey | None = None
    """The key. Unset: none is sent."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)
    """HTTP headers to send."""
    batch: dict[str, Any] = Field(default_factory=dict)
    """Batches of OpenClaw's index; without effect here."""
    non_batch_concurrency: int | None = None
    """Requests at once of OpenClaw's index; without effect here."""


class MemorySearchConfig(Section):
    """OpenClaw's search in memory: its model makes the embeddings, below `embeddings.model`."""

    enabled: Bool = True
    """`false`: its model is not used."""
    provider: str | None = None
    """The provider of the model. Unset: "openai"."""
    model: str | None = None
    """The provider's name for the model. Unset: none."""
    remote: MemoryRemoteConfig = MemoryRemoteConfig()
    """An address for embeddings that is not that of the provider."""


class MemoryConfig(Section):
    """OpenClaw's memory."""

    search: MemorySearchConfig = MemorySearchConfig()
    """OpenClaw's search in memory."""


@record
class EmbeddingSource:
    """A model that makes embeddings, as "provider/model"; `provider` is that of an address of its own."""

    ref: str
    provider: ProviderConfig | None = None

    @property
    def provider_id(self) -> str:
        """The provider's id."""
        return self.ref.partition("/")[0]


def embedding_source(searches: Sequence[MemorySearchConfig]) -> EmbeddingSource | None:
    """Return the model that settings name, the first of which take precedence; `None` if they name none."""
    merged: dict[str, Any] = {}
    remote: dict[str, Any] = {}
    for search in reversed(searches):
        merged |= search.model_dump(exclude_unset=True, exclude={"remote"})
        remote |= search.remote.model_dump(exclude_unset=True, include={"base_url", "api_key", "headers"})
    model = merged.get("model")
    if not model or merged.get("enabled") is False:
        return None
    provider_id = merged.get("provider") or _DEFAULT_PROVIDER
    provider_id = _DEFAULT_PROVIDER if provider_id == "auto" else provider_id
    if remote.get("base_url"):
        host = urlsplit(remote["base_url"]).netloc
        return EmbeddingSource(f"{provider_id}@{host}/{model}", ProviderConfig.model_construct(**remote))
    return None if provider_id in _NO_PROVIDERS else EmbeddingSource(f"{provider_id}/{model}")
