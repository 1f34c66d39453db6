"""How many tokens a request will be counted as: an estimate, corrected by what providers count of others."""

from __future__ import annotations

import orjson

from service.core.messages import Image, Message, Usage
from service.models.provider import DEFAULT_ANSWER_TOKENS, ModelRequest

BYTES_PER_TOKEN = 4
_MESSAGE_TOKENS = 4  # what providers add around each message and each call
_IMAGE_TOKENS = {"low": 100}
_FULL_IMAGE_TOKENS = 1_600  # the most that the large providers count for one
_MIN_CORRECTION, _MAX_CORRECTION = 0.5, 4.0
_MAX_CORRECTED_MODELS = 256
_MIN_TELLING_TOKENS = 1_000

_MARGIN_PART = 20  # a twentieth of the window, for what the estimate misses


def estimate_message(message: Message) -> int:
    """Tokens of one message: a quarter of its UTF-8 bytes (so that scripts with longer codes count more), and images.

    The same for every provider, and within a factor of two of most; `TokenEstimator` corrects it.
    """
    tokens = _MESSAGE_TOKENS
    for part in message.parts:
        tokens += _IMAGE_TOKENS.get(part.detail, _FULL_IMAGE_TOKENS) if isinstance(part, Image) else _tokens(part.text)
    if (data := message.provider_data) is not None:
        tokens += _json_tokens(data.message) + _json_tokens(data.calls)
    return tokens + sum(_MESSAGE_TOKENS + _tokens(call.name + call.arguments) for call in message.tool_calls)


def estimate_request(request: ModelRequest) -> int:
    """Tokens of all that a request says: its system text, its functions and its messages."""
    functions = sum(
        _MESSAGE_TOKENS + _tokens(function.name + (function.description or "")) + _json_tokens(function.parameters)
        for function in request.functions
    )
    return _tokens(request.system) + functions + sum(map(estimate_message, request.messages))


def _tokens(text: str) -> int:
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def _json_tokens(value: object) -> int:
    return len(orjson.dumps(value, default=dict)) // BYTES_PER_TOKEN


class TokenEstimator:
    """Estimates what requests cost, corrected by what providers really counted.

    Holds one number per model, for the models that were used last. Requests name theirs as `provider/model`: what one
    provider counts says nothing of another's model of the same name.
    """

    def __init__(self) -> None:
        self._corrections: dict[str, float] = {}

    def estimate(self, request: ModelRequest) -> int:
        """The input tokens `request` will probably be counted as."""
        return round(estimate_request(request) * self.correction(request.model))

    def correction(self, model: str) -> float:
        """What the plain estimate has to be multiplied by for `model`: 1 until it has been used, 0.5 to 4."""
        return self._corrections.get(model, 1.0)

    def observe(self, request: ModelRequest, usage: Usage) -> None:
        """Learn from an answered `request`; a provider that does not count teaches nothing, nor does a short request.

        What providers add to each request would there be taken for what all text costs.
        """
        estimated = estimate_request(request)
        if usage.input_tokens and estimated >= _MIN_TELLING_TOKENS:
            self._learn(request.model, usage.input_tokens / estimated)

    def observe_overflow(self, request: ModelRequest, limit_tokens: int) -> None:
        """Learn that `request` was more than `limit_tokens`, whatever was thought."""
        at_least = limit_tokens / max(1, estimate_request(request))
        if at_least > self.correction(request.model):
            self._learn(request.model, at_least)

    def _learn(self, model: str, correction: float) -> None:
        self._corrections.pop(model, None)  # the latest stands last
        self._corrections[model] = min(max(correction, _MIN_CORRECTION), _MAX_CORRECTION)
        if len(self._corrections) > _MAX_CORRECTED_MODELS:
            del self._corrections[next(iter(self._corrections))]


def input_limit(window_tokens: int, answer_tokens: int | None) -> int:
    """How many tokens a request may have: the context window less the room for the answer and a margin.

    `answer_tokens` is the most the answer may have (`ChosenModel.answer_tokens`), `None` if that is open; it takes no
    more than half the window.
    """
    answer = min(answer_tokens or DEFAULT_ANSWER_TOKENS, window_tokens // (2 if answer_tokens else 4))
    return max(1, window_tokens - answer - window_tokens // _MARGIN_PART)
