"""Read the answers of the OpenAI dialect: chunks of a stream or one completion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from service.core.errors import GatewayError
from service.core.messages import NO_USAGE, Function, ProviderData, StopReason
from service.models.drafts import Drafts, WrittenCall
from service.models.errors.answer_errors import (
    answer_error,
    find_bare_error,
    find_error,
    stated_error,
    unreadable_error,
)
from service.models.finish_reasons import to_stop_reason
from service.models.finish_state import FinishState, to_reason
from service.models.http.transport import Upstream
from service.models.inline_reasoning import ThoughtFilter
from service.models.openai.choices import by_index
from service.models.openai.content_parts import read_parts
from service.models.openai.reasoning import REASONING, Reasoning
from service.models.openai.repeated_chunks import RepeatedChunks
from service.models.openai.surrogates import Joiner, load_event
from service.models.openai.tool_calls import CallAssembler
from service.models.openai.usage import read_usage
from service.models.openai.whole_messages import WholeMessages, added_by
from service.models.provider import ModelEnded

#: Fields of an event, and of a choice, that need more than a look at the delta.
_EVENT_EXTRAS = frozenset(("error", "type", "base_resp", "x_groq"))
_CHOICE_EXTRAS = frozenset(("error", "message", "usage"))
#: Fields of a delta that are read, or say nothing about its content.
_FIELDS = REASONING | {
    *("role", "content", "refusal", "tool_calls", "function_call", "name", "annotations", "id", "index", "type"),
    *("object", "status", "model", "metadata", "provider_specific_fields", "prefix", "finish_reason"),
}
#: Fields of a message that are read before the rest of it.
_READ = REASONING | {"content", "refusal", "tool_calls"}


class OpenAIAnswer:
    """State of one answer, to a request with `functions`; `thoughts` filters its text."""

    def __init__(self, upstream: Upstream, thoughts: ThoughtFilter, functions: Iterable[Function] = ()) -> None:
        self._upstream = upstream
        self._calls = CallAssembler(functions)
        self._repeated = RepeatedChunks()
        self._joiner = Joiner()
        self.thoughts = thoughts
        self._completion = FinishState()
        self._has_thoughts = self._has_unknown = self._is_refusal = False
        self._index = 0  # of the choice that is the answer, the first one
        self._has_other_choices = False
        self._texts: list[str] = []  # of the deltas
        self._has_deltas = self._has_chunks = self._has_message = False
        self._is_whole = False  # one JSON document, which has an end
        self._messages: WholeMessages | None = None  # where there are no deltas
        self.rest = ""  # of the text, which was held back until the end
        self._usage = NO_USAGE
        self.drafts: Drafts | None = None
        self.is_over = False

    @cached_property
    def _reasoning(self) -> Reasoning:
        """The reasoning beside the text, for an answer that may have some."""
        return Reasoning()

    @property
    def calls(self) -> Sequence[WrittenCall]:
        """The calls so far, as a list that grows."""
        return self._calls.calls

    def is_complete(self) -> bool:
        """Return True once the provider has said that the answer ends, and no call is cut off."""
        if self.is_over:
            return True
        if self._completion.reason is None or not self._completion.is_complete():
            return False
        is_cut = to_stop_reason(self._completion.reason or "") is StopReason.LENGTH
        return is_cut or self._calls.are_whole(is_ended=self._completion.end_confirmed)

    def end_body(self, *, framed: bool, is_document: bool) -> None:
        """Note the end of the body; see `AnswerReader`."""
        self._completion.end_body(framed=framed)
        if is_document and self._has_message and not self._has_chunks:
            self.is_over = self._is_whole = True

    def read_repeated(self, payloads: Sequence[bytes], first: int) -> Sequence[str]:
        """See `AnswerReader`."""
        if not self._completion.no_reason_yet or self._joiner.half:
            return ()
        texts = self._repeated.find_texts(payloads, first)
        self._texts += texts
        return texts

    def read(self, payload: bytes) -> str:
        """Process one chunk or a whole completion and return its text, which may be empty."""
        try:
            event = load_event(payload, "content", "arguments")
            if isinstance(event, list):  # of chunks
                return "".join([self.read(json.dumps(one).encode()) for one in event])
            choices = event.get("choices")
            choice = choices[0] if choices else {}
            if choices and (len(choices) > 1 or (choice.get("index") or 0) != self._index):
                choice = self._own_choice(choices)
            if content := _plain_content(event, choice):
                text = self._add_content(content)
                if self._completion.no_reason_yet and text == content:  # neither held back nor repaired
                    self._repeated.remember(payload, content)
                return text
            text = self._read_choice(choice)
            if usage := event.get("usage") or choice.get("usage") or (event.get("x_groq") or {}).get("usage"):
                self._usage = read_usage(usage, self._usage, self._upstream.host)
        except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
            message = "The model provider sent something that is not a chat completion."
            raise unreadable_error(self._upstream, payload, message) from error
        problem = find_error(event) or (stated_error(choice["error"]) if "error" in choice else None)
        if problem := problem or (None if choices else find_bare_error(event)):
            raise answer_error(self._upstream, problem)
        return text

    def text(self) -> str:
        """Return the text so far, unfiltered."""
        return "".join(self._texts)

    def to_end(self) -> ModelEnded:
        """Return the end of the answer. Raises `provider_error` unless the provider said that it is complete."""
        completion = self._completion
        last = self._joiner.finish() + ("" if self._messages is None else self._messages.finish())
        self.rest = last if self.thoughts.is_done else self.thoughts.filter(last) + self.thoughts.finish()
        if not (self.is_over or completion.is_complete()) or self._is_unproven():
            raise GatewayError("provider_error", "The model provider's answer stopped before its end.")
        reason = to_stop_reason(completion.reason or "")
        if reason is None:
            raise answer_error(self._upstream, None, finish_reason=str(completion.reason))
        if self._calls.calls and reason is StopReason.STOP:
            reason = StopReason.TOOL_CALLS  # some hosts send "stop" for every answer
        if reason is StopReason.TOOL_CALLS and not self._calls.calls:
            raise GatewayError("provider_error", "The model provider announced tool calls and sent none.")
        if reason is StopReason.STOP and not completion.has_output and not self.rest.strip():
            self._check_empty()
        if reason is StopReason.STOP and self._is_refusal:
            reason = StopReason.CONTENT_FILTER  # as hosts call it that have no field for it
        if reason is not StopReason.TOOL_CALLS:
            return ModelEnded(reason, (), self._usage)  # a call that was cut off is not a call
        calls = self._calls.to_calls()
        message, extras = self._reasoning.to_message(), self._calls.extras_of(calls)
        data = ProviderData(message, extras) if message or extras else None
        return ModelEnded(reason, calls, self._usage, data)

    def _check_empty(self) -> None:
        if self._has_thoughts or self.thoughts.found:
            raise GatewayError("provider_error", "The model provider's answer has reasoning, but no text.")
        if self._has_unknown:
            raise GatewayError("provider_error", "The model provider's answer has no text, only parts of other kinds.")
        if self._completion.reason is None:
            raise GatewayError("provider_error", "The model provider ended its answer without any text or reason.")

    def _is_unproven(self) -> bool:
        """True if an end mark without a finish reason proves nothing: for one of several choices, or an empty call."""
        if self._is_whole or self._completion.reason is not None:
            return False
        return self._has_other_choices or self._calls.ends_empty()

    def _own_choice(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the choice that is the answer, empty if all are others."""
        found = by_index(choices)
        if self._completion.reason is None and not self._completion.has_output:
            self._index = min(found)
        self._has_other_choices = self._has_other_choices or found.keys() != {self._index}
        return found.get(self._index, {})

    def _add_content(self, content: str) -> str:
        text = self._joiner.join(content)
        if text:
            self._texts.append(text)
            self._has_deltas = True
            if not self.thoughts.is_done:
                text = self.thoughts.filter(text)
        if not (text and self._completion.no_reason_yet):
            self._completion.add(None, has_output=bool(text))
        return text

    def _read_choice(self, choice: dict[str, Any]) -> str:
        reason = choice.get("finish_reason")
        delta = choice.get("delta")
        if not delta and isinstance(choice.get("text"), str):  # as completions of texts have it
            delta = {"content": choice["text"]}
        if delta:
            self._has_chunks = True
            text, has_calls = self._read_delta(delta)
            self._has_deltas = self._has_deltas or bool(text) or has_calls
        else:
            text, has_calls = "", False
        if message := choice.get("message"):
            self._has_message = True
            more, has_more_calls = self._read_message(message, is_last=to_reason(reason) is not None)
            text, has_calls = text + more, has_calls or has_more_calls
        if text:
            text = self.thoughts.filter(text)
        self._completion.add(reason, has_output=bool(text) or has_calls)
        return text

    def _read_delta(self, delta: dict[str, Any]) -> tuple[str, bool]:
        """Return the text of a delta and True if it has calls."""
        content = delta.get("content")
        calls = delta.get("tool_calls")
        if calls:
            self._calls.add([calls] if isinstance(calls, dict) else calls)
        elif calls := delta.get("function_call"):  # the predecessor of tool_calls
            self._calls.add([{"index": 0, "function": calls}])
        if not REASONING.isdisjoint(delta):
            self._note(self._reasoning.read(delta))
            self._has_thoughts = self._has_thoughts or any(map(delta.get, REASONING))
        if not _FIELDS.issuperset(delta):
            self._has_unknown = self._has_unknown or any(map(delta.get, delta.keys() - _FIELDS))
        content = content or self._read_refusal(delta)
        if not isinstance(content, str):
            content = self._read_parts(content)
        text = self._joiner.join(content)
        self._texts.append(text)
        return text, bool(calls)

    def _read_refusal(self, said: dict[str, Any]) -> Any:
        """Return what a delta or message without content says instead: why the model does not answer."""
        refusal = said.get("refusal") or ""
        self._is_refusal = self._is_refusal or bool(refusal)
        return refusal

    def _read_parts(self, content: Any) -> str:
        parts = read_parts(content)
        self._has_thoughts = self._has_thoughts or parts.has_thoughts
        self._has_unknown = self._has_unknown or parts.has_unknown
        self._note(parts.thoughts)
        return parts.text

    def _note(self, reasoning: str) -> None:
        if reasoning and self.drafts is not None:
            self.drafts.reasoning.append(reasoning)

    def _read_message(self, message: dict[str, Any], *, is_last: bool) -> tuple[str, bool]:
        """Return what a message adds to the deltas, or to the messages before it; many repeat the whole answer."""
        content = message.get("content") or self._read_refusal(message)
        if not isinstance(content, str):
            content = self._read_parts(content)
        calls = message.get("tool_calls") or []
        if self._has_deltas:
            added = added_by(content, self.text())
            new_calls = calls[len(self._calls.calls) :]
            self._calls.add_whole(new_calls)
            self._texts.append(added)
            return added, bool(new_calls)
        self._calls.add_message(calls)
        self._note(self._reasoning.read_message(message))
        self._has_thoughts = self._has_thoughts or any(message.get(name) for name in REASONING)
        rest = {name: value for name, value in message.items() if name not in _READ}
        _, has_call = self._read_delta(rest)
        if self._messages is None:
            self._messages = WholeMessages()
        text = self._joiner.join(self._messages.add(content) + (self._messages.finish() if is_last else ""))
        self._texts.append(text)
        return text, has_call or bool(calls)


def _plain_content(event: dict[str, Any], choice: dict[str, Any]) -> str | None:
    """Return the content of a chunk with nothing else of importance, as most are, `None` for any other event."""
    delta = choice.get("delta")
    if not delta or len(delta) != 1 or choice.get("finish_reason") is not None or event.get("usage"):
        return None
    content = delta.get("content")
    if not isinstance(content, str) or event.get("object") == "error":
        return None
    return content if _EVENT_EXTRAS.isdisjoint(event) and _CHOICE_EXTRAS.isdisjoint(choice) else None
