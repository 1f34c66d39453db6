"""Adapt request fields per model from provider error messages.

A style is kept once a model has answered to it, for that model only: an error may be about one caller's request. A
field that is refused for its value, or beside another one, is left out of that request only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Generic, Protocol, Self, TypeVar

from service.core.errors import GatewayError
from service.models.provider import ModelEnded, ModelRequest, TextReceiver

#: Limit of the styles tried for one request: a strict host refuses one field, or one tool, at a time.
_ADAPTATIONS = 8

#: Error messages about fields that a host does not support.
NOT_KNOWN = re.compile(
    r"unrecogni[sz]ed|unsupported|unknown|unexpected|\bextra(_forbidden)?\b|does not support"
    r"|(not|n't) (supported|permitted|allowed|recogni[sz]ed|available|accepted|compatible|applicable|enabled)"
    r"|(not|n't) valid for this"
    r"|incompatible|deprecated"
    r"|does ?n[o']t (support|accept)|cannot (both )?be (set|used|specified|modified)|only the default|no such"
    r"|invalid (parameter|argument|field)|may only be",
    re.IGNORECASE,
)
_ABOUT_A_SCHEMA = re.compile(r"\bschema\b|['\"(.]properties|\brequired\b", re.IGNORECASE)
# One value is accepted, the same as without the field: "Only the default (1) value is supported."
_HAS_ONE_VALUE = re.compile(
    r"only the default|may only be|\bonly \S+ is (allowed|supported|permitted|accepted)", re.IGNORECASE
)
# "must be one of `none` or `default`", "Input should be 'low', 'medium' or 'high'", "string does not match pattern"
_REFUSES_A_VALUE = re.compile(
    r"\bone of\b|should be ['\"`]|\b(supported|valid|allowed|possible) (values|options)"
    r"|\b(invalid|unsupported|unknown) (value|\W?\w+\W? argument)|does not match|string (is )?too (long|short)"
    r"|found that (can )?support|\bonly messages? of\b"
    r"|\bonly\b[^.]{0,80}\b(is|are) (allowed|supported|permitted|accepted)",
    re.IGNORECASE,
)
_STATES_A_RANGE = re.compile(
    r"(must|should) be|non-?negative|positive|\brange\b|between|greater|less than|at (most|least)"
)
_REFUSES_A_COMBINATION = re.compile(
    r"\bboth\b|together|same time|only one\b|combin|conjunction|mutually|\bunless\b|\bwhen\b", re.IGNORECASE
)
_ONLY_BESIDE = re.compile(r"only (be )?(allowed|supported|available|valid|used|set) (when|if|with)", re.IGNORECASE)
_EFFORT = frozenset(("reasoning_effort", "effort"))


class Style(Protocol):
    """The form of the requests to one model."""

    def for_later_requests(self) -> Self:
        """Return the style for later requests, without what concerns one request only."""
        ...


RequestStyle = TypeVar("RequestStyle", bound=Style)


def refused_fields(
    message: str, patterns: Mapping[str, re.Pattern[str]], sent: Collection[str]
) -> tuple[frozenset[str], bool]:
    """Return the names of `patterns`, optional fields that were `sent`, that an error message refuses.

    The second value is true if it refuses the fields themselves, and false if their values, or one beside another.
    """
    found = {name: match.start() for name in sent if name in patterns and (match := patterns[name].search(message))}
    if not found or _ABOUT_A_SCHEMA.search(message):
        return frozenset(), False
    is_combination = bool(_REFUSES_A_COMBINATION.search(message))
    if _HAS_ONE_VALUE.search(message) and not (is_combination and _EFFORT.intersection(sent)):
        return frozenset(found), True
    is_value = refuses_value(message)
    if not (is_value or NOT_KNOWN.search(message) or _ONLY_BESIDE.search(message)):
        return frozenset(), False
    if is_combination:
        named = sorted(found, key=found.__getitem__)
        return frozenset(named[1:] or named), False  # the first one alone may be accepted
    return frozenset(found), not (is_value or _STATES_A_RANGE.search(message))


def refuses_value(message: str) -> bool:
    """True if an error message is about the value of a field, not about the field."""
    return _REFUSES_A_VALUE.search(message) is not None


class StyleCache(Generic[RequestStyle]):
    """The request styles of one host's models: `usual`, except for those `known` by model id.

    `adapt_to_error` returns the style for a request after an error message of the provider, the same style if the
    message is about something else.
    """

    def __init__(
        self,
        usual: RequestStyle,
        known: Mapping[str, RequestStyle],
        adapt_to_error: Callable[[ModelRequest, RequestStyle, str], RequestStyle],
    ) -> None:
        self._usual = usual
        self._known = dict(known)
        self._adapt_to_error = adapt_to_error

    def ask(
        self,
        request: ModelRequest,
        on_text: TextReceiver,
        ask: Callable[[ModelRequest, RequestStyle, TextReceiver], ModelEnded],
    ) -> ModelEnded:
        """Call `ask` in the style that the model accepts, which may take several requests."""
        usual = style = self._known.get(request.model, self._usual)
        has_begun = False

        def receive(text: str) -> None:
            nonlocal has_begun
            has_begun = True
            on_text(text)

        for adaptations in range(_ADAPTATIONS + 1):
            try:
                ended = ask(request, style, receive)
            except GatewayError as error:
                is_rejected = error.code == "provider_rejected_request" and not has_begun
                wanted = self._adapt_to_error(request, style, error.message) if is_rejected else style
                if wanted == style or adaptations == _ADAPTATIONS:
                    raise
                style = wanted
            else:
                break
        if style is not usual:
            self._known[request.model] = style.for_later_requests()
        return ended
