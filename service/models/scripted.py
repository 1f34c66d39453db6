"""A provider without a network or a model: what it answers follows from the request alone.

Made for tests, fuzzing, benchmarks and for trying a configuration: the model's id chooses the behaviour, and the same
request always gets the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from service.core import concurrency
from service.core.errors import KINDS, GatewayError
from service.core.messages import Message, Role, StopReason, ToolCall, ToolChoiceMode, Usage
from service.models.provider import ModelEnded, ModelEvent, ModelRequest, ModelText

_NOTHING_SAID = "You said nothing."
_SLOW_TEXT = "This answer comes slowly, word by word, so that there is time to leave before it ends."
_SLOW_SECONDS = 0.1
_WORDS = re.compile(r"\s*\S+|\s+$")
_COUNT = re.compile(r"count-([0-9]{1,6})")


class ScriptedProvider:
    """Answers as the model's id says.

    * `echo` says the last user or tool message again, word by word, or a fixed text if that is empty
    * `count-N` counts from 1 to N, at most 999999; `slow` says a word every 0.1 s
    * `silent` waits until it is closed; `stuck` says a word before
    * `tools` calls the first function offered, unless the last message is a tool's result; then it is `echo`
    * `fail-CODE` raises `GatewayError(CODE)`; `fail-midway` says a few words and then raises `provider_error`

    Any other id is `provider_rejected_request`. A tool choice that demands a function gets a call of it, with the
    arguments `{}`, from all but the failing ones and those that wait. An answer is cut at `max_tokens` words; usage
    counts words.
    """

    def __init__(self, sleep: Callable[[float], None] = concurrency.sleep) -> None:
        self._sleep = sleep

    def stream(self, request: ModelRequest) -> Iterator[ModelEvent]:
        """Answer; see `Provider.stream` for the contract."""
        model = request.model
        if model in ("silent", "stuck"):
            if model == "stuck":
                yield ModelText("Well")
            while True:
                self._sleep(3600)
        if model.startswith("fail-") and model != "fail-midway":
            raise _failure(model.removeprefix("fail-"))
        words = _words(request)
        if model != "fail-midway" and (name := _demanded_function(request)):
            yield _call_of(name, request)
            return
        said, reason = 0, StopReason.STOP
        for word in words:
            if said == request.sampling.max_tokens:
                reason = StopReason.LENGTH
                break
            if model == "slow":
                self._sleep(_SLOW_SECONDS)
            yield ModelText(word)
            said += 1
        if model == "fail-midway":
            raise GatewayError("provider_error", "This model fails in the middle of its answer.")
        yield ModelEnded(reason, (), Usage(_count_words(request), said))

    def close(self) -> None:
        """Nothing is held."""


def _failure(code: str) -> GatewayError:
    if code not in KINDS:
        return GatewayError("provider_rejected_request", f"There is no error code {code!r} to fail with.")
    return GatewayError(code, f"This model always fails with {code}.")


def _words(request: ModelRequest) -> Iterator[str]:
    """The words of the answer with the white space around them: joined they are its text."""
    model = request.model
    if model in ("echo", "tools"):
        said = _last_said(request.messages)
        return iter(_WORDS.findall(said if said.strip() else _NOTHING_SAID))
    if model == "slow":
        return iter(_WORDS.findall(_SLOW_TEXT))
    if model == "fail-midway":
        return iter(_WORDS.findall("This will not"))
    if count := _COUNT.fullmatch(model):
        return (f"{number} " for number in range(1, int(count[1]) + 1))
    choices = "echo, count-N, slow, silent, stuck, tools, fail-CODE and fail-midway"
    raise GatewayError("provider_rejected_request", f"There is no scripted model {model!r}: there are {choices}.")


def _last_said(messages: tuple[Message, ...]) -> str:
    said = (message.text for message in reversed(messages) if message.role in (Role.USER, Role.TOOL))
    return next(said, "")


def _demanded_function(request: ModelRequest) -> str | None:
    """The function to call: the one asked for by name, the first if one is required, or if the model likes to call."""
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
