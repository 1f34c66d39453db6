"""Read the answers of the Anthropic dialect: the events of a stream or one message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from service.core.errors import GatewayError
from service.core.ids import new_call_id
from service.core.messages import StopReason, ToolCall, Usage
from service.models.anthropic.content import THINKING, Content
from service.models.anthropic.repeated_texts import RepeatedTexts
from service.models.drafts import Drafts
from service.models.errors.answer_errors import answer_error, find_bare_error, find_error, unreadable_error
from service.models.finish_reasons import to_stop_reason
from service.models.finish_state import FinishState
from service.models.http.transport import Upstream
from service.models.inline_reasoning import ThoughtFilter
from service.models.openai.surrogates import Joiner, joined, load_event
from service.models.provider import ModelEnded
from service.models.streaming import to_count
from service.models.tool_calls import check_calls, is_object, whole_arguments, with_distinct_ids

#: The HTTP status of an error that arrives as an event.
_ERROR_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
}
_THINKING_TOKENS = "thinking_tokens"
#: Deltas that belong to blocks of known kinds.
_DELTAS = ("input_json_delta", "thinking_delta", "signature_delta", "citations_delta")


class _PartialCall:
    """A tool call; `given` is the input of its start, which the pieces that follow replace."""

    __slots__ = ("given", "id", "is_closed", "name", "pieces")

    def __init__(self, block: dict[str, Any]) -> None:
        self.id = _text(block.get("id") or new_call_id())
        self.name = _text(block["name"])
        self.given = block.get("input")
        self.pieces: list[str] = []
        self.is_closed = False

    def is_whole(self, *, is_ended: bool) -> bool:
        """True if the arguments are not cut off; whether none at all are, shows at the end only."""
        arguments = self.arguments()
        return is_object(arguments) if arguments else is_ended or self.is_closed

    def arguments(self) -> str:
        """Return the arguments as JSON text, empty without any."""
        if text := joined(self.pieces):
            return text
        if isinstance(self.given, str):
            return self.given
        return orjson.dumps(self.given).decode() if self.given else ""


class AnthropicAnswer:
    """State of one answer; `thoughts` filters its text, `calls` are those so far."""

    def __init__(self, upstream: Upstream, thoughts: ThoughtFilter) -> None:
        self._upstream = upstream
        self.calls: list[_PartialCall] = []
        self._calls_by_index: dict[Any, _PartialCall | None] = {}  # of every block
        self._calls_chars = 0
        self._content = Content()
        self.thoughts = thoughts
        self._joiner = Joiner()
        self._given = RepeatedTexts()
        self._kinds_of_start: dict[Any, str] = {}  # of blocks in the start of the message, which may come again
        self._texts: list[str] = []  # unfiltered
        self.rest = ""  # of the text, which was held back until the end
        self._completion = FinishState()
        self._has_thoughts = self._has_unknown = False
        self._usage: dict[str, int] = {}
        self.drafts: Drafts | None = None
        self._thought_at_start: set[Any] = set()  # blocks whose thinking may come again
        self.is_over = False
        self._readers: dict[str, Callable[[dict[str, Any]], str]] = {
            "message_start": self._read_start,
            "content_block_start": self._read_block,
            "content_block_delta": self._read_delta,
            "content_block_stop": self._read_block_end,
            "message_delta": self._read_end,
            "message_stop": self._read_stop,
            "message": self._read_message,
        }

    def is_complete(self) -> bool:
        """Return True once the provider has said that the answer ends, and no call is cut off."""
        if not self._completion.is_complete():
            return False
        is_ended = self._completion.end_confirmed
        return self._stop_reason() is StopReason.LENGTH or all(call.is_whole(is_ended=is_ended) for call in self.calls)

    def end_body(self, *, framed: bool, is_document: bool) -> None:
        """Note the end of the body; see `AnswerReader`. A message has a stop reason in any case."""
        del is_document
        self._completion.end_body(framed=framed)

    def read_repeated(self, payloads: Sequence[bytes], first: int) -> Sequence[str]:
        """See `AnswerReader`; none are read so."""
        del payloads, first
        return ()

    def read(self, payload: bytes) -> str:
        """Process one event and return its text, which may be empty; unknown events are ignored."""
        try:
            event = load_event(payload, "text", "partial_json")
            kind = event.get("type")
            reader = self._readers.get(kind) if kind else None
            problem = None if reader is not None else find_error(event) or (None if kind else find_bare_error(event))
            if problem:
                status = _ERROR_STATUSES.get(problem.get("type", "")) if isinstance(problem, dict) else None
                raise answer_error(self._upstream, problem, status)
            text = reader(event) if reader is not None else ""
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            message = "The model provider sent something that is not a message."
            raise unreadable_error(self._upstream, payload, message) from error
        if text:
            self._texts.append(text)
            text = self.thoughts.filter(text)
            self._completion.add(None, has_output=bool(text))
        return text

    def text(self) -> str:
        """Return the text so far, unfiltered."""
        return "".join(self._texts)

    def to_end(self) -> ModelEnded:
        """Return the end of the answer. Raises `provider_error` unless the provider said that it is complete."""
        completion = self._completion
        self.rest = self.thoughts.filter(self._joiner.finish() + self._given.end_all()) + self.thoughts.finish()
        if completion.reason is None or not (self.is_over or completion.is_complete()):
            raise GatewayError("provider_error", "The model provider's answer stopped before its end.")
        reason = self._stop_reason()
        if reason is None:
            raise answer_error(self._upstream, None, finish_reason=completion.reason)
        if self.calls and reason is StopReason.STOP:
            reason = StopReason.TOOL_CALLS
        if not self.calls and reason in (StopReason.STOP, StopReason.TOOL_CALLS):
            self._check_empty()
        if reason is StopReason.TOOL_CALLS and not self.calls:
            raise GatewayError("provider_error", "The model provider announced tool calls and sent none.")
        if reason is not StopReason.TOOL_CALLS:
            return ModelEnded(reason, (), self._to_usage())  # a call that was cut off is not a call
        calls = with_distinct_ids(
            ToolCall(call.id, call.name, whole_arguments(call.arguments())) for call in self.calls
        )
        return ModelEnded(reason, calls, self._to_usage(), self._content.to_data(calls))

    def _stop_reason(self) -> StopReason | None:
        return to_stop_reason(self._completion.reason or "")

    def _check_empty(self) -> None:
        if self._completion.has_output or self.rest.strip():
            return
        if self._has_thoughts or self.thoughts.found:
            raise GatewayError("provider_error", "The model provider's answer has thinking, but no text.")
        if self._has_unknown:
            raise GatewayError("provider_error", "The model provider's answer has no text, only parts of other kinds.")

    def _read_start(self, event: dict[str, Any]) -> str:
        """Read the start of a message, which some servers send with content."""
        message = event.get("message") or {}
        if self._completion.has_output:
            raise GatewayError("provider_error", "The model provider began its answer twice.")
        if message.get("content"):
            return self._read_content(message)
        self._count(message.get("usage"))
        return ""

    def _read_message(self, message: dict[str, Any]) -> str:
        """Read a whole message, which some servers send instead of a stream."""
        text = self._read_content(message) + self._given.end_all()
        self.is_over = self._completion.reason is not None
        return text

    def _read_content(self, message: dict[str, Any]) -> str:
        content = message["content"] or []
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(self._read_block({"index": index, "content_block": block}) for index, block in enumerate(blocks))
        self._kinds_of_start = {index: block.get("type") for index, block in enumerate(blocks)}
        self._thought_at_start = {index for index, block in enumerate(blocks) if block.get("thinking")}
        self._count(message.get("usage"))
        if text or self.calls:
            self._completion.add(None, has_output=True)
        if reason := message.get("stop_reason"):
            self._completion.add(_text(reason), has_output=False)
        return text

    def _read_block(self, event: dict[str, Any]) -> str:
        block, index = event["content_block"], event.get("index", 0)
        kind = block["type"]
        if kind == "text":
            block = {**block, "text": self._joiner.join(_text(block.get("text") or ""))}
        if self._kinds_of_start.pop(index, None) == kind and kind in ("text", "tool_use"):
            return self._extend_text(index, self._given.begin(index, block["text"])) if kind == "text" else ""
        self._content.begin(index, block)
        self._note(index, block.get("thinking"))
        self._has_thoughts = self._has_thoughts or kind in THINKING
        self._has_unknown = self._has_unknown or kind not in ("text", "tool_use", *THINKING)
        self._calls_by_index[index] = None
        if kind == "tool_use":
            call = self._calls_by_index[index] = _PartialCall(block)
            self.calls.append(call)
            self._completion.add(None, has_output=True)
            self._calls_chars += len(call.arguments())
            check_calls(len(self.calls), self._calls_chars)
        return self._given.begin(index, block["text"]) if kind == "text" else ""

    def _extend_text(self, index: Any, text: str) -> str:
        self._content.extend(index, {"type": "text_delta", "text": text})
        return text

    def _read_block_end(self, event: dict[str, Any]) -> str:
        index = event.get("index", 0)
        if (call := self._calls_by_index.get(index)) is not None:
            call.is_closed = True
        return self._extend_text(index, self._given.extend(index, self._joiner.finish()) + self._given.end(index))

    def _read_delta(self, event: dict[str, Any]) -> str:
        delta, index = event["delta"], event.get("index", 0)
        kind = delta.get("type") or ("text_delta" if "text" in delta else None)
        if kind == "text_delta":
            text = self._joiner.join(_text(delta.get("text") or ""))
            return self._extend_text(index, self._given.extend(index, text))
        self._content.extend(index, delta)
        self._note(index, delta.get("thinking"))
        self._has_unknown = self._has_unknown or kind not in _DELTAS
        if kind == "input_json_delta":
            piece = _text(delta.get("partial_json") or "")
            self._calls_chars += len(piece)
            check_calls(len(self.calls), self._calls_chars)
            latest = self.calls[-1] if self.calls else None  # for an index that no block began with
            if call := self._calls_by_index.get(index, latest):  # tools that the provider runs itself are not here
                call.pieces.append(piece)
                self._completion.add(None, has_output=True)
        return ""

    def _note(self, index: Any, thinking: object) -> None:
        if self.drafts is not None and isinstance(thinking, str) and index not in self._thought_at_start:
            self.drafts.reasoning.append(thinking)

    def _read_end(self, event: dict[str, Any]) -> str:
        if reason := (event.get("delta") or {}).get("stop_reason"):
            self._completion.add(_text(reason), has_output=False)
        self._count(event.get("usage"))
        return ""

    def _read_stop(self, _: dict[str, Any]) -> str:
        self.is_over = True
        return ""

    def _count(self, usage: dict[str, Any] | None) -> None:
        # Each report covers the whole answer so far; the last one may omit the input, or have 0 for it.
        counts = usage if isinstance(usage, dict) else {}
        details = counts.get("output_tokens_details")
        if isinstance(details, dict) and details.get(_THINKING_TOKENS) is not None:
            counts = {**counts, _THINKING_TOKENS: details[_THINKING_TOKENS]}
        self._usage |= {name: max(to_count(count), self._usage.get(name, 0)) for name, count in counts.items()}

    def _to_usage(self) -> Usage:
        counts = self._usage
        cached = counts.get("cache_read_input_tokens", 0)
        written = counts.get("cache_creation_input_tokens", 0)
        total = counts.get("input_tokens", 0) + written + cached
        return Usage(total, counts.get("output_tokens", 0), cached, counts.get(_THINKING_TOKENS), written)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of a text")
    return value
