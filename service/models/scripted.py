"""A deterministic provider without a network or a model.

For tests, fuzzing, benchmarks and trying out a configuration: the model's id selects the behaviour, and equal requests
get equal answers.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator

import orjson

from service.core import concurrency
from service.core.errors import GatewayError
from service.core.messages import Message, Role, StopReason, ToolCall, ToolChoiceMode, Usage
from service.models.embeddings import EmbeddingRequest, Embeddings
from service.models.output_format import JSON_OBJECT, JSON_SCHEMA
from service.models.provider import ModelEnded, ModelRequest, TextReceiver
from service.models.scripted_errors import is_scripted_error, scripted_error

_EMPTY_INPUT_TEXT = "You said nothing."
_SLOW_TEXT = "This answer comes slowly, word by word, so that there is time to leave before it ends."
_SLOW_SECONDS = 0.1
_EMBEDDING_SIZE = 16
_WORDS = re.compile(r"\s*\S+|\s+$")
_COUNT = re.compile(r"count-([0-9]{1,6})")
_NAMES = ("echo", "slow", "silent", "stuck", "tools", "fail-midway")
_CHOICES = f"{', '.join(_NAMES)}, count-N or fail-CODE"


class ScriptedProvider:
    """Provider with one behaviour per model id.

    * `echo` repeats the last user or tool message word by word, or a fixed text if that is empty
    * `count-N` counts from 1 to N, at most 999999; `slow` sends a word every 0.1 s
    * `silent` waits until it is closed; `stuck` does so after one word
    * `tools` calls the first function offered, unless the last message is a tool's result; then it is `echo`
    * `fail-CODE` raises `scripted_error(CODE)`; `fail-midway` sends a few words and then raises `provider_error`

    Where a request asks for JSON, a text that is none (or, for `json_object`, no object) becomes its member `text`. Any
    other id is `provider_rejected_request`. A tool choice that requires a function is met with a call of it with
    the arguments `{}`, except by failing and waiting models. Answers are cut at `max_tokens` words; usage counts words.
    """

    def __init__(self, sleep: Callable[[float], None] = concurrency.sleep) -> None:
        self._sleep = sleep

    def ask(self, request: ModelRequest, on_text: TextReceiver) -> ModelEnded:
        """Answer; see `Provider.ask` for the contract."""
        model = request.model
        if model in ("silent", "stuck"):
            if model == "stuck":
                on_text("Well")
            while True:
                self._sleep(3600)
        if model.startswith("fail-") and model != "fail-midway":
            raise scripted_error(model.removeprefix("fail-"))
        words = _words(request)
        if model != "fail-midway" and (name := _required_function(request)):
            return _call_of(name, request)
        sent, reason = 0, StopReason.STOP
        for word in words:
            if sent == request.sampling.max_tokens:
                reason = StopReason.LENGTH
                break
            if model == "slow":
                self._sleep(_SLOW_SECONDS)
            on_text(word)
            sent += 1
        if model == "fail-midway":
            raise GatewayError("provider_error", "This model fails in the middle of its answer.")
        return ModelEnded(reason, (), Usage(_count_words(request), sent))

    def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return a vector of length 1 for each input, the same for equal inputs; `fail-CODE` fails."""
        if request.model.startswith("fail-"):
            raise scripted_error(request.model.removeprefix("fail-"))
        size = request.dimensions or _EMBEDDING_SIZE
        texts = [one if isinstance(one, str) else " ".join(map(str, one)) for one in request.inputs]
        return Embeddings(tuple(_vector(text, size) for text in texts), sum(len(text.split()) for text in texts))

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _vector(text: str, size: int) -> list[float]:
    seed = hashlib.shake_128(text.encode(errors="surrogatepass")).digest(size)
    numbers = [byte - 127.5 for byte in seed]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


def _words(request: ModelRequest) -> Iterator[str]:
    """Return the answer's words with the white space around them; joined they are its text."""
    wanted = (request.sampling.response_format or {}).get("type")
    if wanted not in (JSON_OBJECT, JSON_SCHEMA) or request.model in ("slow", "fail-midway"):
        return _plain_words(request)
    text = "".join(_plain_words(request))
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    is_right = isinstance(value, dict) or (value is not None and wanted == JSON_SCHEMA)
    return _split(text if is_right else orjson.dumps({"text": text}).decode())


def _plain_words(request: ModelRequest) -> Iterator[str]:
    model = request.model
    if model in ("echo", "tools"):
        text = _last_input(request.messages)
        return _split(text if text.strip() else _EMPTY_INPUT_TEXT)
    if model == "slow":
        return _split(_SLOW_TEXT)
    if model == "fail-midway":
        return _split("This will not")
    if count := _COUNT.fullmatch(model):
        return (f"{number} " for number in range(1, int(count[1]) + 1))
    raise _unknown(model)


def check_name(model: str) -> None:
    """Raise `GatewayError` for the name of a model that answers nothing but that it is unknown."""
    if model.startswith("fail-") and model != "fail-midway":
        if not is_scripted_error(model.removeprefix("fail-")):
            raise scripted_error(model.removeprefix("fail-"))
    elif model not in _NAMES and not _COUNT.fullmatch(model):
        raise _unknown(model)


def _unknown(model: str) -> GatewayError:
    return GatewayError("provider_rejected_request", f"Unknown scripted model {model!r}. Use one of {_CHOICES}.")


def _split(text: str) -> Iterator[str]:
    return (word[0] for word in _WORDS.finditer(text))


def _last_input(messages: tuple[Message, ...]) -> str:
    inputs = (message.text for message in reversed(messages) if message.role in (Role.USER, Role.TOOL))
    return next(inputs, "")


def _required_function(request: ModelRequest) -> str | None:
    """Return the function to call: the named one, or the first if one is required or the model is `tools`."""
    if request.tool_choice.name is not None:
        return request.tool_choice.name
    if not request.functions or request.tool_choice.mode is ToolChoiceMode.NONE:
        return None
    has_result = bool(request.messages) and request.messages[-1].role is Role.TOOL
    if request.tool_choice.mode is ToolChoiceMode.REQUIRED or (request.model == "tools" and not has_result):
        return request.functions[0].name
    return None


def _call_of(name: str, request: ModelRequest) -> ModelEnded:
    call = ToolCall(f"call_{len(request.messages)}", name, "{}")  # calls of one conversation never share an id
    return ModelEnded(StopReason.TOOL_CALLS, (call,), Usage(_count_words(request), 1))


def _count_words(request: ModelRequest) -> int:
    return len(request.system.split()) + sum(len(message.text.split()) for message in request.messages)
