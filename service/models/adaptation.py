"""How each model is spoken to: as is usual at its host, until its own refusals tell otherwise.

A style is kept once a model has answered to it, and for that model alone: a refusal may be about one caller's request.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Generic, TypeVar

from service.core.errors import GatewayError
from service.models.provider import ModelEvent, ModelRequest

#: How often one request is put in another style: a model may have a word to say on each part of it.
_CORRECTIONS = 3

RequestStyle = TypeVar("RequestStyle")


class StyleCache(Generic[RequestStyle]):
    """The styles of one host's models, `usual` but for those that are `known` by their ids.

    `corrected` gives the style for a request after its refusal in another one, told with the provider's words; the
    same if it was refused for something else.
    """

    def __init__(
        self,
        usual: RequestStyle,
        known: Mapping[str, RequestStyle],
        corrected: Callable[[ModelRequest, RequestStyle, str], RequestStyle],
    ) -> None:
        self._usual = usual
        self._known = dict(known)
        self._corrected = corrected

    def stream(
        self, request: ModelRequest, ask: Callable[[ModelRequest, RequestStyle], Generator[ModelEvent]]
    ) -> Iterator[ModelEvent]:
        """What `ask` yields in the style that the model takes; before the first event it may be asked again."""
        first, rest = self._begin(request, ask)
        with closing(rest):
            yield first
            yield from rest

    def _begin(
        self, request: ModelRequest, ask: Callable[[ModelRequest, RequestStyle], Generator[ModelEvent]]
    ) -> tuple[ModelEvent, Generator[ModelEvent]]:
        usual = style = self._known.get(request.model, self._usual)
        for corrections in range(_CORRECTIONS + 1):
            events = ask(request, style)
            try:
                first = next(events)
            except GatewayError as error:
                is_refusal = error.code == "provider_rejected_request"
                wanted = self._corrected(request, style, error.message) if is_refusal else style
                if wanted == style or corrections == _CORRECTIONS:
                    raise
                style = wanted
            else:
                break
        if style != usual:
            self._known[request.model] = style
        return first, events
