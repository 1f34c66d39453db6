"""Estimate input tokens, corrected per model by the usage that providers report."""

from __future__ import annotations

import orjson

from service.core.messages import Image, Message, Usage
from service.models.prefix_cache import Prefix, PrefixCache
from service.models.provider import DEFAULT_ANSWER_TOKENS, ModelRequest

BYTES_PER_TOKEN = 4
_MESSAGE_TOKENS = 4  # what providers add around each message and each call
_IMAGE_TOKENS = {"low": 100}
_FULL_IMAGE_TOKENS = 1_600  # the most that the large providers count for one
_MIN_CORRECTION, _MAX_CORRECTION = 0.5, 4.0
_MAX_CORRECTED_MODELS = 256
_MIN_LEARNING_TOKENS = 1_000
_MAX_COUNTED_BYTES = 4 * 1024 * 1024

_MARGIN_PART = 20  # a twentieth of the window, for what the estimate misses


def estimate_message(message: Message) -> int:
    """Return the tokens of one message: a quarter of its UTF-8 bytes, plus a fixed number per image.

    The same for every provider, and within a factor of two for most; `TokenEstimator` corrects it.
    """
    tokens = _MESSAGE_TOKENS
    for part in message.parts:
        tokens += _IMAGE_TOKENS.get(part.detail, _FULL_IMAGE_TOKENS) if isinstance(part, Image) else _tokens(part.text)
    if (data := message.provider_data) is not None:
        tokens += _json_tokens(data.message) + _json_tokens(data.calls)
    return tokens + sum(_MESSAGE_TOKENS + _tokens(call.name + call.arguments) for call in message.tool_calls)


def estimate_request(request: ModelRequest) -> int:
    """Return the tokens of a whole request: system text, functions and messages."""
    return _estimate_rest(request) + sum(map(estimate_message, request.messages))


def _estimate_rest(request: ModelRequest) -> int:
    functions = sum(
        _MESSAGE_TOKENS + _tokens(function.name + (function.description or "")) + _json_tokens(function.parameters)
        for function in request.functions
    )
    return _tokens(request.system) + functions


def _tokens(text: str) -> int:
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def _json_tokens(value: object) -> int:
    return len(orjson.dumps(value, default=dict)) // BYTES_PER_TOKEN


class TokenEstimator:
    """Estimates the input tokens of requests, with one correction factor per model from reported usage.

    Keeps the factors of the most recently used models. Requests name them as `provider/model`: providers count
    differently for models of the same name. The messages of continued conversations are counted once.
    """

    def __init__(self) -> None:
        self._corrections: dict[str, float] = {}
        self._counted: PrefixCache[int] = PrefixCache(_MAX_COUNTED_BYTES)

    def estimate(self, request: ModelRequest) -> int:
        """Return the input tokens that the provider will probably count for `request`."""
        return round(self._estimate(request) * self.correction(request.model))

    def _estimate(self, request: ModelRequest) -> int:
        """Return what `estimate_request` does."""
        messages = request.messages
        if not request.continued or not messages:
            return estimate_request(request)
        known = self._counted.find(None, messages)
        count, tokens = (0, 0) if known is None else (len(known.messages), known.value)
        tokens += sum(map(estimate_message, messages[count:]))
        if count < len(messages):
            self._counted.put(Prefix(None, messages, tokens))
        return tokens + _estimate_rest(request)

    def correction(self, model: str) -> float:
        """Return the correction factor of `model`, 0.5 to 4; 1 until it has been used."""
        return self._corrections.get(model, 1.0)

    def observe(self, request: ModelRequest, usage: Usage) -> None:
        """Correct the estimates by an answered `request`. Short requests and providers without usage are ignored.

        In a short request the fixed overhead that providers add would distort the factor.
        """
        estimated = self._estimate(request)
        if usage.input_tokens and estimated >= _MIN_LEARNING_TOKENS:
            self._learn(request.model, usage.input_tokens / estimated)

    def observe_overflow(self, request: ModelRequest, limit_tokens: int) -> None:
        """Record that `request` has more than `limit_tokens`."""
        at_least = limit_tokens / max(1, self._estimate(request))
        if at_least > self.correction(request.model):
            self._learn(request.model, at_least)

    def _learn(self, model: str, correction: float) -> None:
        self._corrections.pop(model, None)  # the latest goes last
        self._corrections[model] = min(max(correction, _MIN_CORRECTION), _MAX_CORRECTION)
        if len(self._corrections) > _MAX_CORRECTED_MODELS:
            del self._corrections[next(iter(self._corrections))]


def input_limit(window_tokens: int, answer_tokens: int | None) -> int:
    """Return the most tokens a request may have: the context window less room for the answer and a margin.

    `answer_tokens` is the limit of the answer (`ChosenModel.answer_tokens`), `None` for no limit; at most half of the
    window is reserved for it.
    """
    answer = min(answer_tokens or DEFAULT_ANSWER_TOKENS, window_tokens // (2 if answer_tokens else 4))
    return max(1, window_tokens - answer - window_tokens // _MARGIN_PART)
