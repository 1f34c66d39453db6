"""Translate requests for embeddings, validated against the contract, and their answers."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from service.api.http.caller import Caller, origin_of
from service.core.errors import GatewayError
from service.gateway.embedding import EmbeddingTask
from service.models.embeddings import Embeddings

_DEFAULT_MODEL = "openclaw"


def parse_embedding_request(body: Mapping[str, Any], caller: Caller) -> EmbeddingTask:
    """Translate a request; `body` satisfies the contract's `EmbeddingRequest`."""
    given = body["input"]
    request_id, caller_trace = origin_of(caller.environ)
    is_one = isinstance(given, str) or isinstance(given[0], int)
    return EmbeddingTask(
        inputs=[given] if is_one else given,
        model=body.get("model") or None,
        agent_id=caller.environ.get("HTTP_X_OPENCLAW_AGENT_ID") or None,
        provider_model=caller.environ.get("HTTP_X_OPENCLAW_MODEL") or None,
        dimensions=body.get("dimensions"),
        user=body.get("user") or None,
        principal=caller.principal,
        request_id=request_id,
        caller_trace=caller_trace,
        on_trace=caller.note_trace,
    )


def to_embedding_list(found: Embeddings, body: Mapping[str, Any]) -> dict[str, Any]:
    """Translate embeddings to the contract's `EmbeddingList`, in the requested encoding."""
    encode = _to_base64 if body.get("encoding_format") == "base64" else _same
    return {
        "object": "list",
        "model": body.get("model") or _DEFAULT_MODEL,
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(found.vectors)
        ],
        "usage": {"prompt_tokens": found.input_tokens, "total_tokens": found.input_tokens},
    }


def _same(vector: Sequence[float]) -> Sequence[float]:
    return vector


def _to_base64(vector: Sequence[float]) -> str:
    """Encode a vector as OpenAI does: 32-bit numbers, little-endian."""
    try:
        numbers = array("f", vector)
        is_finite = math.inf not in numbers and -math.inf not in numbers
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise GatewayError("provider_error", "The model provider's vectors have numbers that are too large.")
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
