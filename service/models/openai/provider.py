"""Provider of the OpenAI chat-completions dialect.

Upstream requests always stream and ask for usage. An answer is complete only if the provider said so, by a finish
reason or `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from service.config.models import ModelCompat, ProviderConfig
from service.models.answers import receive_answer
from service.models.embeddings import EmbeddingRequest, Embeddings, ask_upstream
from service.models.errors.http_errors import check_success
from service.models.http.proxies import DIRECT, ProxySettings
from service.models.http.transport import Upstream
from service.models.inline_reasoning import ThoughtFilters
from service.models.model_lists import read_list
from service.models.openai.answer import OpenAIAnswer
from service.models.openai.hosts import RequestStyle, quirks_of
from service.models.openai.request import RequestWriter
from service.models.provider import ModelEnded, ModelRequest, TextReceiver


class OpenAIProvider:
    """A host of OpenAI's `POST /chat/completions`, below the base address of `upstream`.

    `models` holds the deviations of its models from the host's conventions, by model id.
    """

    #: Endpoint below the base URL.
    PATH = "/chat/completions"

    def __init__(self, upstream: Upstream, models: Mapping[str, ModelCompat] | None = None) -> None:
        self._upstream = upstream
        self._writer = RequestWriter(quirks_of(upstream.host), models or {})
        self._thoughts = ThoughtFilters()

    @classmethod
    def from_config(cls, config: ProviderConfig, network: ProxySettings = DIRECT) -> Self:
        """Create the provider of a `models.providers` entry; its own headers take precedence over the API key."""
        headers = dict(config.headers)
        if config.api_key is not None and "authorization" not in (name.lower() for name in headers):
            headers["Authorization"] = f"Bearer {config.api_key.get_secret_value()}"
        seconds = config.timeout_seconds
        upstream = Upstream(config.base_url or "", headers, network=network, read_timeout_seconds=seconds)
        return cls(upstream, {model.id: model.compat for model in config.models})

    def ask(self, request: ModelRequest, on_text: TextReceiver) -> ModelEnded:
        """Ask the model; see `Provider.ask` for the contract."""
        return self._writer.styles.ask(request, on_text, self._ask)

    def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Make embeddings; see `EmbeddingProvider`."""
        return ask_upstream(self._upstream, request)

    def list_models(self) -> frozenset[str] | None:
        """Return the ids of its models; see `ListingProvider`."""
        return read_list(self._upstream, "/models", "after")

    def close(self) -> None:
        """Close the connections."""
        self._upstream.close()

    def _ask(self, request: ModelRequest, style: RequestStyle, on_text: TextReceiver) -> ModelEnded:
        sent = style.tools.apply(request)
        answer = OpenAIAnswer(self._upstream, self._thoughts.of(request), sent.functions)
        with self._upstream.post_stream(self.PATH, self._writer.write(sent, style)) as response:
            check_success(self._upstream, response, self.PATH)
            return receive_answer(
                response,
                answer,
                request,
                on_text,
                tools=style.tools,
                filters=self._thoughts,
                timeout_seconds=self._upstream.read_timeout_seconds,
            )
