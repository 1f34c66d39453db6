"""The members of a response that repeat its request, with OpenAI's defaults where the request has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.api.http.openai_responses.tools import to_tool_echo

#: The value of `include` that shows the calls of the agent's own tools.
OWN_CALLS = "openclaw.tool_calls"

_DEFAULT_MODEL = "openclaw"
_MAYBE_NULL = (
    *("instructions", "max_output_tokens", "max_tool_calls", "prompt_cache_key"),
    *("safety_identifier", "user"),
)
_DEFAULTS: dict[str, Any] = {
    "frequency_penalty": 0,
    "metadata": {},
    "model": _DEFAULT_MODEL,
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "store": True,
    "temperature": 1,
    "tool_choice": "auto",
    "top_p": 1,
    "truncation": "disabled",
}


def to_echo(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a response to the request `body`, which satisfies the contract.

    One of them is none: `include` is there if the response shows the calls of the agent's own tools.
    """
    conversation = conversation_of(body)
    return {
        **({"include": [OWN_CALLS]} if OWN_CALLS in (body.get("include") or ()) else {}),
        **{name: body.get(name) for name in _MAYBE_NULL},
        **{name: default if body.get(name) is None else body[name] for name, default in _DEFAULTS.items()},
        "model": body.get("model") or _DEFAULT_MODEL,
        "background": bool(body.get("background")),
        "conversation": None if conversation is None else {"id": conversation},
        "previous_response_id": body.get("previous_response_id") or None,
        "reasoning": {"effort": (body.get("reasoning") or {}).get("effort"), "summary": summary_of(body)},
        "service_tier": "default",
        "text": _to_text(body.get("text") or {}),
        "tools": to_tool_echo(body.get("tools") or ()),
        "top_logprobs": 0,
    }


def summary_of(body: Mapping[str, Any]) -> str | None:
    """Return the kind of summary of its reasoning that a request asks for."""
    reasoning = body.get("reasoning") or {}
    summary: str | None = reasoning.get("summary") or reasoning.get("generate_summary")
    return summary


def conversation_of(body: Mapping[str, Any]) -> str | None:
    """Return the id of the conversation that a request names."""
    given = body.get("conversation") or None
    return given["id"] if isinstance(given, Mapping) else given


def _to_text(text: Mapping[str, Any]) -> dict[str, Any]:
    echo: dict[str, Any] = {"format": text.get("format") or {"type": "text"}}
    if text.get("verbosity") is not None:
        echo["verbosity"] = text["verbosity"]
    return echo
