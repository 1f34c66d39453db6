"""The OpenAI chat-completions dialect: our words to its wire and back.

The upstream request always streams and asks for usage; an answer counts as complete only when the provider said so, by
a finish reason or `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, Self

import orjson

from service.config.models import ModelCompat, ProviderConfig
from service.core.errors import GatewayError
from service.core.ids import new_call_id
from service.core.messages import ProviderData, StopReason, ToolCall, Usage
from service.models.errors.error_text import error_status, error_words
from service.models.errors.http_errors import check_success, status_error
from service.models.http.proxies import DIRECT, ProxySettings
from service.models.http.transport import Upstream
from service.models.openai.finish_reasons import is_failure, to_stop_reason
from service.models.openai.hosts import CALL_DATA, RequestStyle, quirks_of
from service.models.openai.reasoning import Reasoning
from service.models.openai.request import RequestWriter
from service.models.openai.surrogates import Joiner, load_event
from service.models.provider import ModelEnded, ModelEvent, ModelRequest, ModelText
from service.models.streaming import MAX_ANSWER_CHARS, read_texts, to_count
from service.models.tool_calls import check_calls, is_object, with_distinct_ids


class OpenAIProvider:
    """A place that speaks OpenAI's `POST /chat/completions`, below the base address of `upstream`.

    `models` says by their ids what some of its models want otherwise than the host.
    """

    #: Endpoint below the base URL.
    PATH = "/chat/completions"

    def __init__(self, upstream: Upstream, models: Mapping[str, ModelCompat] | None = None) -> None:
        self._upstream = upstream
        self._writer = RequestWriter(quirks_of(upstream.host), models or {})

    @classmethod
    def from_config(cls, config: ProviderConfig, network: ProxySettings = DIRECT) -> Self:
        """The provider a `models.providers` entry describes; its own headers win over the API key's."""
        headers = dict(config.headers)
        if config.api_key is not None and "authorization" not in (name.lower() for name in headers):
            headers["Authorization"] = f"Bearer {config.api_key.get_secret_value()}"
        seconds = config.timeout_seconds
        upstream = Upstream(config.base_url or "", headers, network=network, read_timeout_seconds=seconds)
        return cls(upstream, {model.id: model.compat for model in config.models})

    def stream(self, request: ModelRequest) -> Iterator[ModelEvent]:
        """Ask the model; see `Provider.stream` for the contract."""
        return self._writer.styles.stream(request, self._ask)

    def close(self) -> None:
        """Let go of the connections."""
        self._upstream.close()

    def _ask(self, request: ModelRequest, style: RequestStyle) -> Generator[ModelEvent]:
        with self._upstream.post_stream(self.PATH, self._writer.write(request, style)) as response:
            check_success(self._upstream, response, self.PATH)
            answer = _Answer(self._upstream)
            if (response.header("content-type") or "").startswith("application/json"):
                if text := answer.read(response.read_all(MAX_ANSWER_CHARS, self._upstream.read_timeout_seconds)):
                    yield ModelText(text)
            else:
                timeout_seconds = self._upstream.read_timeout_seconds
                yield from map(ModelText, read_texts(response, answer, timeout_seconds=timeout_seconds))
            yield answer.to_end()


class _PartialCall:
    """A tool call whose pieces are still coming."""

    __slots__ = ("arguments", "extra", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.extra: dict[str, Any] = {}  # what its provider wants back with it


class _Answer:
    """What an answer has said so far beside its text."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._calls: list[_PartialCall] = []
        self._call_by_index: dict[int, _PartialCall] = {}
        self._calls_chars = 0
        self._joiner = Joiner()
        self._reasoning = Reasoning()
        self._usage = Usage()
        self._finish_reason: str | None = None
        self.is_over = False

    def is_complete(self) -> bool:
        """Whether the provider said that this is all."""
        return self.is_over or self._finish_reason is not None

    def read(self, payload: bytes) -> str:
        """Take in one chunk, the end mark or a whole completion, and return its text, perhaps empty."""
        if payload == b"[DONE]":
            self.is_over = True
            return ""
        try:
            event = load_event(payload)
            choice = (event.get("choices") or [{}])[0]
            text = self._joiner.join(self._read_choice(choice))
            if usage := event.get("usage"):
                self._usage = _from_usage(usage)
        except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
            message = "The model provider sent something that is not a chat completion."
            raise GatewayError("provider_error", message) from error
        if told := event.get("error") or choice.get("error"):
            raise self._failure(told)
        if event.get("object") == "error":
            raise self._failure(event)
        if (reason := choice.get("finish_reason")) and is_failure(reason):
            raise self._failure(None, reason)
        return text

    def to_end(self) -> ModelEnded:
        """The end of the turn; raises `provider_error` when the provider never said that it was one."""
        if not self.is_complete():
            raise GatewayError("provider_error", "The model provider's answer stopped before its end.")
        reason = to_stop_reason(self._finish_reason or "")
        if self._calls and reason is StopReason.STOP:
            reason = StopReason.TOOL_CALLS  # some say "stop" whatever they asked for
        if reason is StopReason.TOOL_CALLS and not self._calls:
            reason = StopReason.STOP
        if reason is not StopReason.TOOL_CALLS:
            return ModelEnded(reason, (), self._usage)  # a call that was cut off is not a call
        calls = with_distinct_ids(map(_to_call, self._calls))
        return ModelEnded(reason, calls, self._usage, self._to_data(calls))

    def _failure(self, told: Any, finish_reason: str = "") -> GatewayError:
        detail = error_words(self._upstream, told)
        status = error_status(told)
        if status is not None:
            return status_error(status, detail)
        because = detail or (f"it ended with {finish_reason}." if finish_reason else "it did not say why.")
        return GatewayError("provider_error", f"The model provider failed in the middle of its answer: {because}")

    def _to_data(self, calls: tuple[ToolCall, ...]) -> ProviderData | None:
        message = self._reasoning.to_message()
        extras = {call.id: told.extra for call, told in zip(calls, self._calls, strict=True) if told.extra}
        return ProviderData(message, extras) if message or extras else None

    def _read_choice(self, choice: dict[str, Any]) -> str:
        if reason := choice.get("finish_reason"):
            self._finish_reason = str(reason)
        delta = choice.get("delta") or choice.get("message")
        if not delta:
            return ""
        if len(delta) == 1 and isinstance(text := delta.get("content"), str):
            return text  # as most are
        if calls := delta.get("tool_calls"):
            self._add_calls(calls)
        elif function := delta.get("function_call"):  # as there was before several could be made
            self._add_calls([{"index": 0, "function": function}])
        self._reasoning.read(delta)
        text = delta.get("content") or delta.get("refusal") or ""
        if isinstance(text, str):
            return text
        return "".join(part["text"] for part in text if part.get("type") == "text")

    def _add_calls(self, pieces: list[dict[str, Any]]) -> None:
        for piece in pieces:
            call = self._call_of(piece)
            function = piece.get("function") or {}
            arguments = function.get("arguments") or ""
            if not isinstance(arguments, str):
                arguments = orjson.dumps(arguments).decode()
            call.id = call.id or str(piece.get("id") or "")
            call.name = call.name or _name_of(piece)
            call.arguments.append(arguments)
            if extra := piece.get(CALL_DATA):
                call.extra[CALL_DATA] = extra
                self._calls_chars += len(orjson.dumps(extra))
            self._calls_chars += len(arguments) + len(call.name) + len(call.id)
            check_calls(len(self._calls), self._calls_chars)

    def _call_of(self, piece: dict[str, Any]) -> _PartialCall:
        """The call a piece belongs to: its index says so, or else a new id or another name begins a new one."""
        index, call_id = piece.get("index"), piece.get("id")
        call = self._calls[-1] if index is None and self._calls else self._call_by_index.get(index or 0)
        names_another = not call_id and call is not None and _names_another(call, piece)
        if call is None or names_another or (call_id and call.id and call_id != call.id):
            call = _PartialCall()
            self._calls.append(call)
            self._call_by_index[index or 0] = call
        return call


def _to_call(call: _PartialCall) -> ToolCall:
    if not call.name:
        raise GatewayError("provider_error", "The model provider asked for a function without naming it.")
    return ToolCall(call.id or new_call_id(), call.name, "".join(call.arguments) or "{}")


def _names_another(call: _PartialCall, piece: dict[str, Any]) -> bool:
    """Whether a piece without an id begins the call after `call`: its name says so, which some repeat in every piece.

    An index that is the same is believed until the arguments are whole and the piece brings others.
    """
    name = _name_of(piece)
    if not (call.name and name) or piece.get("index") is None:
        return bool(call.name and name)
    arguments = (piece.get("function") or {}).get("arguments")
    begins = not isinstance(arguments, str) or name != call.name or arguments.lstrip().startswith("{")
    return begins and is_object("".join(call.arguments))


def _name_of(piece: dict[str, Any]) -> str:
    name = (piece.get("function") or {}).get("name") or ""
    if not isinstance(name, str):
        raise TypeError("a function's name is a text")
    return name


def _from_usage(usage: Any) -> Usage:
    # A wrong count is no reason to lose an answer.
    counts = usage if isinstance(usage, dict) else {}
    details = counts.get("prompt_tokens_details")
    return Usage(
        input_tokens=to_count(counts.get("prompt_tokens")),
        output_tokens=to_count(counts.get("completion_tokens")),
        cached_tokens=to_count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
    )
