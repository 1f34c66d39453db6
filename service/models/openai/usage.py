"""Read the token counts of the OpenAI dialect.

The tokens of the model's reasoning are part of the output. xAI and Google count them beside it, and only in the total;
Google does not even name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.core.messages import Usage
from service.models.streaming import to_count

_HIDES_REASONING = "googleapis.com"


def read_usage(usage: Any, earlier: Usage, host: str) -> Usage:
    """Return the counts of a provider at `host`, or the `earlier` ones where they are higher.

    A wrong count must not fail the answer.
    """
    counts: Mapping[str, Any] = usage if isinstance(usage, dict) else {}
    details = counts.get("prompt_tokens_details")
    input_tokens = to_count(counts.get("prompt_tokens") or counts.get("input_tokens"))
    stated = to_count(counts.get("completion_tokens") or counts.get("output_tokens"))
    beside = to_count(counts.get("total_tokens")) - input_tokens - stated  # what the total has in addition
    reasoning = _stated_reasoning(counts)
    if reasoning is None and beside >= 0 and _is_within(host, _HIDES_REASONING):
        reasoning = beside
    is_beside = reasoning is not None and (beside == reasoning or reasoning > stated)
    output_tokens = stated + (reasoning or 0) if is_beside else stated
    if reasoning is None or (earlier.reasoning_tokens or 0) > reasoning:
        reasoning = earlier.reasoning_tokens
    return Usage(  # some hosts send the counts in two chunks
        max(earlier.input_tokens, input_tokens),
        max(earlier.output_tokens, output_tokens),
        max(earlier.cached_tokens, to_count(details.get("cached_tokens")) if isinstance(details, dict) else 0),
        reasoning,
    )


def _stated_reasoning(counts: Mapping[str, Any]) -> int | None:
    """Return the tokens of reasoning, in the details (OpenAI) or beside the other counts (SGLang)."""
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = counts.get(name)
        if isinstance(details, dict) and details.get("reasoning_tokens") is not None:
            return to_count(details["reasoning_tokens"])
    stated = counts.get("reasoning_tokens")
    return None if stated is None else to_count(stated)


def _is_within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")
