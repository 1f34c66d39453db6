"""The Anthropic Messages dialect: our words to its wire and back.

The upstream request always streams; an answer counts as complete only when the provider told its stop reason.

What the wire has no place for is treated by what it means. A field that would change the answer (penalties other than
0, `logit_bias`, `response_format` of `json_object`) is refused by name; what is only a wish (`seed`, `verbosity`, cache
and safety keys, participants' names) is left out. Thinking is left to the model, and told to nobody; what led to calls
goes back with them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Self

import orjson

from service.config.models import ProviderConfig
from service.core.errors import GatewayError
from service.core.messages import StopReason, ToolCall, Usage
from service.models.adaptation import StyleCache
from service.models.anthropic.content import Content
from service.models.anthropic.request import to_wire
from service.models.errors.error_text import error_text
from service.models.errors.http_errors import check_success, status_error
from service.models.http.proxies import DIRECT, ProxySettings
from service.models.http.transport import Upstream
from service.models.provider import ModelEnded, ModelEvent, ModelRequest, ModelText
from service.models.streaming import read_texts, to_count
from service.models.tool_calls import check_calls, with_distinct_ids

#: The version in which `temperature` and `top_p` exist, and the one that other servers of this dialect know.
_VERSION = "2023-06-01"
_STOP_REASONS = {
    "max_tokens": StopReason.LENGTH,
    "model_context_window_exceeded": StopReason.LENGTH,
    "tool_use": StopReason.TOOL_CALLS,
    "refusal": StopReason.CONTENT_FILTER,
    "pause_turn": StopReason.LENGTH,  # it would go on if it was asked to
}
#: The status that an error told in the middle of a stream would have had before it.
_ERROR_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
}


class AnthropicProvider:
    """A place that speaks Anthropic's `POST /v1/messages`, below the base address of `upstream`."""

    #: Endpoint below the base URL.
    PATH = "/v1/messages"

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._styles = StyleCache(True, {}, _corrected)

    @classmethod
    def from_config(cls, config: ProviderConfig, network: ProxySettings = DIRECT) -> Self:
        """The provider a `models.providers` entry describes, its base URL with or without `/v1` at the end.

        Its own headers win over the API key's and the version's.
        """
        headers = {"anthropic-version": _VERSION} | {name.lower(): value for name, value in config.headers.items()}
        if config.api_key is not None and not headers.keys() & {"x-api-key", "authorization"}:
            headers["x-api-key"] = config.api_key.get_secret_value()
        base_url = (config.base_url or "").removesuffix("/v1")
        return cls(Upstream(base_url, headers, network=network, read_timeout_seconds=config.timeout_seconds))

    def stream(self, request: ModelRequest) -> Iterator[ModelEvent]:
        """Ask the model; see `Provider.stream` for the contract."""
        return self._styles.stream(request, self._ask)

    def close(self) -> None:
        """Let go of the connections."""
        self._upstream.close()

    def _ask(self, request: ModelRequest, marks_cache: bool) -> Generator[ModelEvent]:
        body = orjson.dumps(to_wire(request, marks_cache=marks_cache), default=_to_plain)
        with self._upstream.post_stream(self.PATH, body) as response:
            check_success(self._upstream, response, self.PATH)
            answer = _Answer(self._upstream)
            timeout_seconds = self._upstream.read_timeout_seconds
            texts = read_texts(response, answer, timeout_seconds=timeout_seconds, is_keep_alive=_is_ping)
            yield from map(ModelText, texts)
            yield answer.to_end()


class _Answer:
    """What an answer has said so far beside its text."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._calls: dict[int, tuple[str, str, list[str]]] = {}  # id, name and pieces, by the block's index
        self._calls_chars = 0
        self._content = Content()
        self._usage: dict[str, int] = {}
        self._stop_reason: str | None = None
        self.is_over = False
        self._readers: dict[str, Callable[[dict[str, Any]], str]] = {
            "message_start": self._read_start,
            "content_block_start": self._read_block,
            "content_block_delta": self._read_delta,
            "message_delta": self._read_end,
            "message_stop": self._read_stop,
        }

    def is_complete(self) -> bool:
        """Whether the provider said why it stopped."""
        return self._stop_reason is not None

    def read(self, payload: bytes) -> str:
        """Take in one event and return its text, perhaps empty; kinds of event that are new are passed over."""
        try:
            event = orjson.loads(payload)
            kind = event["type"]
            if kind == "error":
                raise self._failure(event.get("error") or {}, payload)
            reader = self._readers.get(kind)
            return reader(event) if reader is not None else ""
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise GatewayError("provider_error", "The model provider sent something that is not a message.") from error

    def to_end(self) -> ModelEnded:
        """The end of the turn; raises `provider_error` when the provider never said that it was one."""
        if not self.is_complete():
            raise GatewayError("provider_error", "The model provider's answer stopped before its end.")
        reason = _STOP_REASONS.get(self._stop_reason or "", StopReason.STOP)
        if self._calls and reason is StopReason.STOP:
            reason = StopReason.TOOL_CALLS
        if reason is not StopReason.TOOL_CALLS:
            return ModelEnded(reason, (), self._to_usage())  # a call that was cut off is not a call
        calls = with_distinct_ids(
            ToolCall(call_id, name, "".join(pieces) or "{}") for call_id, name, pieces in self._calls.values()
        )
        return ModelEnded(reason, calls, self._to_usage(), self._content.to_data(calls))

    def _read_start(self, event: dict[str, Any]) -> str:
        self._count(event["message"].get("usage"))
        return ""

    def _read_block(self, event: dict[str, Any]) -> str:
        block = event["content_block"]
        self._content.begin(event["index"], block)
        if block["type"] == "tool_use":
            given = block.get("input")  # empty where the pieces are to follow
            pieces = [orjson.dumps(given).decode()] if given else []
            self._calls[event["index"]] = (_text(block["id"]), _text(block["name"]), pieces)
            check_calls(len(self._calls), self._calls_chars)
        return str(block["text"]) if block["type"] == "text" else ""

    def _read_delta(self, event: dict[str, Any]) -> str:
        delta = event["delta"]
        self._content.extend(event["index"], delta)
        if delta["type"] == "input_json_delta":
            piece = _text(delta["partial_json"])
            self._calls_chars += len(piece)
            check_calls(len(self._calls), self._calls_chars)
            if call := self._calls.get(event["index"]):  # the provider's own tools are not ours to call
                call[2].append(piece)
        return str(delta["text"]) if delta["type"] == "text_delta" else ""

    def _read_end(self, event: dict[str, Any]) -> str:
        if reason := event["delta"].get("stop_reason"):
            self._stop_reason = _text(reason)
        self._count(event.get("usage"))
        return ""

    def _read_stop(self, _: dict[str, Any]) -> str:
        self.is_over = True
        return ""

    def _count(self, usage: dict[str, Any] | None) -> None:
        # Each report is of the whole answer so far; the last one may be silent about the input.
        counts = usage if isinstance(usage, dict) else {}
        self._usage |= {name: to_count(told) for name, told in counts.items() if told is not None}

    def _to_usage(self) -> Usage:
        counts = self._usage
        cached = counts.get("cache_read_input_tokens", 0)
        fresh = counts.get("input_tokens", 0) + counts.get("cache_creation_input_tokens", 0)
        return Usage(fresh + cached, counts.get("output_tokens", 0), cached)

    def _failure(self, told: dict[str, Any], payload: bytes) -> GatewayError:
        detail = error_text(self._upstream, payload)
        status = _ERROR_STATUSES.get(told.get("type", ""))
        if status is not None:
            return status_error(status, detail)
        because = detail or "it did not say why."
        return GatewayError("provider_error", f"The model provider failed in the middle of its answer: {because}")


def _corrected(_: ModelRequest, marks_cache: bool, refusal: str) -> bool:
    return marks_cache and "cache_control" not in refusal


def _text(told: object) -> str:
    if not isinstance(told, str):
        raise TypeError(f"{type(told).__name__} where a text belongs")
    return told


def _is_ping(payload: bytes) -> bool:
    return payload[:32].replace(b" ", b"").startswith(b'{"type":"ping"')


def _to_plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")
