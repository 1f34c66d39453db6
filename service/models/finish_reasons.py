"""Finish reasons of all dialects and their variants.

Hosts pass on those of the model's own API (Gemini's `MAX_TOKENS`, Mistral's `model_length`) in any case, and Google
prefixes its own with OpenAI's (`content_filter: SAFETY`).
"""

from __future__ import annotations

import re
from functools import lru_cache

from service.core.messages import StopReason

_WORD_ENDS = re.compile(r"(?<=[a-z])(?=[A-Z])")

#: `FinishReason.STOP`, `FINISH_REASON_STOP` and `REASON_STOP` are `STOP`.
_TYPE = re.compile(r"^(.*\.)?((finish_?|stop_?)?reason_)?(?=.)", re.IGNORECASE)

#: More characters than any known reason has.
_LONGEST = 128

_STOP = (
    *("", "stop", "end_turn", "stop_sequence", "stop_sequence_reached", "stop_word", "stop_string_found"),
    *("eos", "eos_token", "eos_found", "end_of_text", "end", "finish", "finished", "done", "complete", "completed"),
    *("normal", "success", "stopped", "end_of_sequence", "end_of_stream"),
)
_LENGTH = (
    *("length", "model_length", "max_length", "max_tokens", "max_output_tokens", "token_limit", "limit"),
    *("model_context_window_exceeded", "context_length", "context_length_reached", "max_predicted_tokens_reached"),
    *("max_new_tokens", "token_limit_reached", "max_tokens_reached", "length_limit", "max_len"),
    *("context_window_exceeded", "context_window_reached", "context_limit"),
    *("pause_turn", "incomplete", "time_limit"),  # the model would continue if asked
)
_CALLS = ("tool_calls", "tool_call", "tool_use", "function_call")
_FILTERED = (
    *("content_filter", "content_filtered", "sensitive", "safety", "refusal", "guardrail_intervened"),
    *("recitation", "prohibited_content", "blocklist", "spii", "image_safety", "language"),
)
_REASONS = {
    **dict.fromkeys(_STOP, StopReason.STOP),
    **dict.fromkeys(_LENGTH, StopReason.LENGTH),
    **dict.fromkeys(_CALLS, StopReason.TOOL_CALLS),
    **dict.fromkeys(_FILTERED, StopReason.CONTENT_FILTER),
}


def to_stop_reason(reason: str) -> StopReason | None:
    """Map a provider's finish reason; `None` for a failure, and for an unknown one, which proves nothing."""
    return _REASONS.get(normalised(reason))


def normalised(reason: str) -> str:
    """Return a finish reason in lower case with underscores, without the name of its type; only its beginning."""
    return _normalised(reason[:_LONGEST])


@lru_cache(maxsize=256)
def _normalised(reason: str) -> str:
    words = _WORD_ENDS.sub("_", _TYPE.sub("", reason.rpartition(":")[2].strip()))
    return words.lower().replace("-", "_").replace(" ", "_")
