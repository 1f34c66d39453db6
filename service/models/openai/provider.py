"""Provider of the OpenAI chat-completions dialect.

Upstream requests always stream and ask for usage. An answer is complete only if the provider said so, by a finish
reason or `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from service.config.models import ModelCompat, ProviderConfig
from service.models.drafts import Drafts
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
from service.models.streaming import deliver, read_texts


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
        with self._upstream.post_stream(self.PATH, self._writer.write(request, style)) as response:
            check_success(self._upstream, response, self.PATH)
            thoughts = self._thoughts.of(request)
            answer = OpenAIAnswer(self._upstream, thoughts, style.tools.apply(request).functions)
            timeout_seconds = self._upstream.read_timeout_seconds
            if request.drafts is not None:
                shows_calls = request.drafts.wants_calls and style.tools.name_chars is None
                answer.drafts = thoughts.drafts = Drafts(answer.calls if shows_calls else ())
            deliver(read_texts(response, answer, timeout_seconds=timeout_seconds), answer, on_text, request.drafts)
            end = answer.to_end()
            self._thoughts.check(request.model, thoughts, answer.text())
            deliver(iter([answer.rest()]), answer, on_text, request.drafts)
            return style.tools.restore(request, end)
