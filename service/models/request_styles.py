"""Adapt request fields per model from provider error messages.

A style is kept once a model has answered to it, for that model only: an error may be about one caller's request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from service.core.errors import GatewayError
from service.models.provider import ModelEnded, ModelRequest, TextReceiver

#: Limit of the styles tried for one request: a strict host refuses one field, or one tool, at a time.
_ADAPTATIONS = 8

#: Error messages about fields that a host does not support.
NOT_KNOWN = re.compile(
    r"unrecogni[sz]ed|unsupported|unknown|unexpected|\bextra(_forbidden)?\b|does not support"
    r"|(not|n't) (supported|permitted|allowed|recogni[sz]ed|available|accepted|compatible|applicable|valid for this)"
    r"|incompatible|deprecated"
    r"|does ?n[o']t (support|accept)|cannot (both )?be (set|used|specified|modified)|only the default|no such"
    r"|invalid (parameter|argument|field)|may only be",
    re.IGNORECASE,
)
_ABOUT_A_SCHEMA = re.compile(r"\bschema\b|['\"(.]properties|\brequired\b", re.IGNORECASE)

RequestStyle = TypeVar("RequestStyle")


def refused_fields(message: str, patterns: Mapping[str, re.Pattern[str]]) -> frozenset[str]:
    """Return the names of `patterns`, optional fields, that an error message refuses as unsupported."""
    if not NOT_KNOWN.search(message) or _ABOUT_A_SCHEMA.search(message):
        return frozenset()
    return frozenset(name for name, pattern in patterns.items() if pattern.search(message))


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
        if style != usual:
            self._known[request.model] = style
        return ended
