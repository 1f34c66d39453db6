"""Finish reasons of the OpenAI dialect and its variants.

Hosts pass on those of the model's own API (Gemini's `MAX_TOKENS`, Mistral's `model_length`) in either case, and Google
prefixes its own with OpenAI's (`content_filter: SAFETY`).
"""

from __future__ import annotations

from service.core.messages import StopReason

_LENGTH = ("length", "model_length", "max_tokens", "max_output_tokens", "model_context_window_exceeded")
_CALLS = ("tool_calls", "tool_call", "tool_use", "function_call")
_FILTERED = (
    *("content_filter", "content_filtered", "sensitive", "safety", "refusal"),
    *("recitation", "prohibited_content", "blocklist", "spii", "image_safety"),
)
_REASONS = {
    **dict.fromkeys(_LENGTH, StopReason.LENGTH),
    **dict.fromkeys(_CALLS, StopReason.TOOL_CALLS),
    **dict.fromkeys(_FILTERED, StopReason.CONTENT_FILTER),
}
_FAILURES = frozenset(
    {
        *("error", "network_error", "insufficient_system_resource"),  # OpenRouter, Zhipu, DeepSeek
        *("abort", "aborted", "cancelled"),  # vLLM, SGLang
        *("malformed_function_call", "unexpected_tool_call"),  # Gemini
    }
)


def to_stop_reason(reason: str) -> StopReason:
    """Map a provider's finish reason; an unknown one is `STOP`."""
    return _REASONS.get(_normalised(reason), StopReason.STOP)


def is_failure(reason: object) -> bool:
    """True for a finish reason that reports a failure."""
    return isinstance(reason, str) and _normalised(reason) in _FAILURES


def _normalised(reason: str) -> str:
    return reason.rpartition(":")[2].strip().lower()
