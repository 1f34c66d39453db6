"""Sort the choices of an event by index; those of one index are one answer (GitHub Copilot: text, then calls)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.core.messages import StopReason
from service.models.finish_reasons import to_stop_reason
from service.models.finish_state import to_reason

_SAID = ("delta", "message")
_CALLS = "tool_calls"


def by_index(choices: Iterable[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Return one choice for each index, without one 0."""
    found: dict[Any, dict[str, Any]] = {}
    for choice in choices:
        index = choice.get("index") or 0
        found[index] = _merged(found[index], choice) if index in found else choice
    return found


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = _filled(first, second)
    for name in _SAID:
        said, more = first.get(name), second.get(name)
        if said and more:
            calls = [*(said.get(_CALLS) or ()), *(more.get(_CALLS) or ())]
            both[name] = _filled(said, more) | ({_CALLS: calls} if calls else {})
    reasons = [reason for one in (first, second) if to_reason(reason := one.get("finish_reason")) is not None]
    both["finish_reason"] = next((one for one in reasons if to_stop_reason(str(one)) is not StopReason.STOP), None)
    both["finish_reason"] = both["finish_reason"] or next(iter(reasons), None)
    return both


def _filled(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return `first` with the members of `second` that it lacks."""
    return first | {name: value for name, value in second.items() if not first.get(name)}
