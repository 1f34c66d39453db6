"""Embeddings: the vectors that a model makes of texts, and the dialect of OpenAI's endpoint for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import orjson

from service.core.dataclass import record
from service.core.errors import GatewayError
from service.models.errors.http_errors import check_success
from service.models.http.transport import Upstream

PATH = "/embeddings"

#: The largest answer of a provider: two thousand vectors of a large model, as decimal numbers.
_MAX_ANSWER_BYTES = 96 * 1024 * 1024


@record
class EmbeddingRequest:
    """Texts, or their tokens, to make vectors of, one for each of `inputs`.

    `dimensions` shortens the vectors, for models that can. `user` is a hint for the provider.
    """

    model: str
    inputs: Sequence[str] | Sequence[Sequence[int]]
    dimensions: int | None = None
    user: str | None = None


@record
class Embeddings:
    """The vectors, in the order of the inputs, and the provider's count of tokens."""

    vectors: tuple[Sequence[float], ...]
    input_tokens: int = 0


@runtime_checkable
class EmbeddingProvider(Protocol):
    """A provider that makes embeddings."""

    def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Make the vectors. Raises the errors of `Provider.ask`; an answer that lacks a vector is `provider_error`."""
        ...


def no_embeddings(ref: str) -> GatewayError:
    """Return the error of a model that makes no embeddings."""
    text = f"The model {ref} makes no embeddings. Choose one that does, in embeddings.model or x-openclaw-model."
    return GatewayError("unsupported_parameter", text, param="model")


def ask_upstream(upstream: Upstream, request: EmbeddingRequest) -> Embeddings:
    """Make the vectors by OpenAI's `POST /embeddings`."""
    body: dict[str, Any] = {"model": request.model, "input": request.inputs}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.user is not None:
        body["user"] = request.user
    with upstream.post_stream(PATH, (orjson.dumps(body),)) as response:
        check_success(upstream, response, PATH)
        data = response.read_all(_MAX_ANSWER_BYTES + 1)
    if len(data) > _MAX_ANSWER_BYTES:
        raise GatewayError(
            "provider_error", "The model provider's embeddings are too large. Send fewer inputs at once."
        )
    found = _parse(data, len(request.inputs))
    _check_lengths(found.vectors, request.dimensions)
    return found


def _parse(data: bytes, count: int) -> Embeddings:
    try:
        answer = orjson.loads(data)
        items = {item.get("index", place): item["embedding"] for place, item in enumerate(answer["data"])}
        vectors = tuple(items[index] for index in range(count))
        usage = answer.get("usage") or {}
        tokens = usage.get("prompt_tokens") or usage.get("total_tokens") or 0
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        raise _unreadable() from None
    if len(answer["data"]) != count or not isinstance(tokens, int) or not all(map(_is_vector, vectors)):
        raise _unreadable()
    return Embeddings(vectors, max(0, tokens))


def _check_lengths(vectors: Sequence[Sequence[float]], dimensions: int | None) -> None:
    lengths = set(map(len, vectors))
    if len(lengths) > 1:
        raise GatewayError("provider_error", "The model provider answered with vectors of different lengths.")
    if dimensions is not None and lengths != {dimensions}:
        text = f"The model ignores `dimensions`: its vectors have {lengths.pop()} numbers. Omit `dimensions`."
        raise GatewayError("unsupported_parameter", text, param="dimensions")


def _is_vector(value: Any) -> bool:
    # No boolean passes for a number.
    return isinstance(value, list) and bool(value) and {type(number) for number in value} <= {int, float}


def _unreadable() -> GatewayError:
    text = "The model provider did not answer with one vector for each input."
    return GatewayError("provider_error", text)
