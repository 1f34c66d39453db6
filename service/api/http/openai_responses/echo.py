"""The members of a response that repeat its request, or say what is in force where the request has nothing.

Where the agent has no setting either, they have OpenAI's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.api.http.openai_responses.tools import to_tool_echo
from service.core.messages import Sampling

#: The value of `include` that shows the calls of the agent's own tools.
OWN_CALLS = "openclaw.tool_calls"

_MAYBE_NULL = ("instructions", "max_tool_calls", "prompt_cache_key", "safety_identifier", "user")
_DEFAULTS: dict[str, Any] = {
    "frequency_penalty": 0,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "store": True,
    "tool_choice": "auto",
    "truncation": "disabled",
}


def to_echo(body: Mapping[str, Any], agent_id: str, sampling: Sampling) -> dict[str, Any]:
    """Return the members of a response to the request `body`, which satisfies the contract.

    `sampling` are the parameters in force. Without a `model` the response names its agent.
    One of them is none: `include` is there if the response shows the calls of the agent's own tools.
    """
    conversation = conversation_of(body)
    return {
        **({"include": [OWN_CALLS]} if OWN_CALLS in (body.get("include") or ()) else {}),
        **{name: body.get(name) for name in _MAYBE_NULL},
        **{name: default if body.get(name) is None else body[name] for name, default in _DEFAULTS.items()},
        "model": body.get("model") or f"openclaw/{agent_id}",
        "background": bool(body.get("background")),
        "max_output_tokens": sampling.max_tokens,
        "temperature": 1 if sampling.temperature is None else sampling.temperature,
        "top_p": 1 if sampling.top_p is None else sampling.top_p,
        "conversation": None if conversation is None else {"id": conversation},
        "previous_response_id": body.get("previous_response_id") or None,
        "reasoning": {"effort": sampling.extra.get("reasoning_effort"), "summary": summary_of(body)},
        "service_tier": "default",
        "text": _to_text((body.get("text") or {}).get("format"), sampling.extra.get("verbosity")),
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


def _to_text(wanted: Mapping[str, Any] | None, verbosity: str | None) -> dict[str, Any]:
    return {"format": wanted or {"type": "text"}, **({} if verbosity is None else {"verbosity": verbosity})}
