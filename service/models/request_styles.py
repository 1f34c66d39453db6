"""Adapt request fields per model from provider error messages.

A style is kept once a model has answered to it, for that model only: an error may be about one caller's request.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Generic, TypeVar

from service.core.errors import GatewayError
from service.models.provider import ModelEvent, ModelRequest

#: Limit of the styles tried for one request: a strict host refuses one field at a time.
_ADAPTATIONS = 6

RequestStyle = TypeVar("RequestStyle")


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

    def stream(
        self, request: ModelRequest, ask: Callable[[ModelRequest, RequestStyle], Generator[ModelEvent]]
    ) -> Iterator[ModelEvent]:
        """Yield the events of `ask` in the style that the model accepts, which may take several requests."""
        first, rest = self._begin(request, ask)
        with closing(rest):
            yield first
            yield from rest

    def _begin(
        self, request: ModelRequest, ask: Callable[[ModelRequest, RequestStyle], Generator[ModelEvent]]
    ) -> tuple[ModelEvent, Generator[ModelEvent]]:
        usual = style = self._known.get(request.model, self._usual)
        for adaptations in range(_ADAPTATIONS + 1):
            events = ask(request, style)
            try:
                first = next(events)
            except GatewayError as error:
                is_rejected = error.code == "provider_rejected_request"
                wanted = self._adapt_to_error(request, style, error.message) if is_rejected else style
                if wanted == style or adaptations == _ADAPTATIONS:
                    raise
                style = wanted
            else:
                break
        if style != usual:
            self._known[request.model] = style
        return first, events
