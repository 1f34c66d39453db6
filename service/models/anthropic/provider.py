"""Provider of the Anthropic Messages dialect.

Upstream requests always stream; an answer is complete only with a stop reason.

Fields without an equivalent are treated by their meaning. `logit_bias`, which would change the answer, is refused by
name; the format `json_object` becomes an instruction, as the answer is checked; hints (penalties, `seed`, `verbosity`,
cache and safety keys, names of participants) are left out. Thinking is left to the model and not shown; thinking that
led to calls is sent back with them.
"""

from __future__ import annotations

from typing import Self

from service.config.models import ProviderConfig
from service.models.answers import receive_answer
from service.models.anthropic.answer import AnthropicAnswer
from service.models.anthropic.request import RequestStyle, RequestWriter, adapt_to_error
from service.models.errors.http_errors import check_success
from service.models.http.proxies import DIRECT, ProxySettings
from service.models.http.transport import Upstream
from service.models.inline_reasoning import ThoughtFilters
from service.models.model_lists import read_list
from service.models.provider import ModelEnded, ModelRequest, TextReceiver
from service.models.request_styles import StyleCache

#: The version that has `temperature` and `top_p`, and the one that other servers of this dialect support.
_VERSION = "2023-06-01"


class AnthropicProvider:
    """A host of Anthropic's `POST /v1/messages`, below the base address of `upstream`."""

    #: Endpoint below the base URL.
    PATH = "/v1/messages"

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._writer = RequestWriter()
        self._thoughts = ThoughtFilters()
        self._styles = StyleCache(RequestStyle(), {}, adapt_to_error)

    @classmethod
    def from_config(cls, config: ProviderConfig, network: ProxySettings = DIRECT) -> Self:
        """Create the provider of a `models.providers` entry, whose base URL may end with `/v1`.

        Its own headers take precedence over the API key and the version.
        """
        headers = {"anthropic-version": _VERSION} | {name.lower(): value for name, value in config.headers.items()}
        if config.api_key is not None and not headers.keys() & {"x-api-key", "authorization"}:
            headers["x-api-key"] = config.api_key.get_secret_value()
        base_url = (config.base_url or "").removesuffix("/v1")
        return cls(Upstream(base_url, headers, network=network, read_timeout_seconds=config.timeout_seconds))

    def ask(self, request: ModelRequest, on_text: TextReceiver) -> ModelEnded:
        """Ask the model; see `Provider.ask` for the contract."""
        return self._styles.ask(self._writer.with_usable_tools(request), on_text, self._ask)

    def list_models(self) -> frozenset[str] | None:
        """Return the ids of its models; see `ListingProvider`."""
        return read_list(self._upstream, "/v1/models", "after_id")

    def close(self) -> None:
        """Close the connections."""
        self._upstream.close()

    def _ask(self, request: ModelRequest, style: RequestStyle, on_text: TextReceiver) -> ModelEnded:
        answer = AnthropicAnswer(self._upstream, self._thoughts.of(request))
        with self._upstream.post_stream(self.PATH, self._writer.write(request, style)) as response:
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
