"""Decide whether an answer is complete, from its finish reasons and the output around them."""

from __future__ import annotations

from service.core.messages import StopReason
from service.models.finish_reasons import normalised, to_stop_reason

_INCOMPLETE = (StopReason.LENGTH, StopReason.CONTENT_FILTER)
_NO_REASONS = ("", "null", "none", "undefined", "unspecified")


class FinishState:
    """Finish state of one answer.

    Some hosts send a finish reason with every chunk, or before the text. A reason is trusted only if it ends output
    that came without one; any other reason needs the end mark or the end of the body.
    """

    __slots__ = (
        "_is_overtaken",
        "_is_plain",
        "end_confirmed",
        "has_output",
        "no_reason_yet",
        "reason",
        "reason_trusted",
    )

    def __init__(self) -> None:
        self.reason: str | None = None
        self.has_output = False
        self.no_reason_yet = False  # all output came without a reason: more of it changes nothing
        self.reason_trusted = False
        self._is_plain = False  # the latest output came without a reason
        self._is_overtaken = False  # output came after a reason
        self.end_confirmed = False  # nothing follows, and the reason counts

    def add(self, reason: object, *, has_output: bool) -> None:
        """Process one event: its finish reason, if any, and whether it has text or a piece of a call."""
        named = None if reason is None else to_reason(reason)
        if has_output:
            self._is_overtaken = self._is_overtaken or self.reason is not None
            self.reason_trusted = named is not None and self._is_plain
            self._is_plain = named is None
            self.has_output = True
        elif named is not None:
            self.reason_trusted = self.reason_trusted or self._is_plain
        if named is not None and (self.reason is None or not _is_milder(named, self.reason)):
            self.reason = named
        self.no_reason_yet = self._is_plain and self.reason is None

    def end_body(self, *, framed: bool) -> None:
        """Note the end of the body, which confirms a reason unless the body may be cut after any chunk."""
        self.end_confirmed = framed or self.reason_trusted or not self._is_overtaken

    def is_complete(self) -> bool:
        """True if the provider has said that the answer is complete."""
        return self.reason is not None and (self.reason_trusted or self.end_confirmed)


def _is_milder(reason: str, earlier: str) -> bool:
    """True if `reason` says that an answer is complete of which an earlier reason said that it is not."""
    return to_stop_reason(reason) is StopReason.STOP and to_stop_reason(earlier) in _INCOMPLETE


def to_reason(value: object) -> str | None:
    """Return a finish reason as text, `None` for the many spellings of none."""
    if value is None or value is False:
        return None
    reason = str(value)
    return None if normalised(reason) in _NO_REASONS else reason
