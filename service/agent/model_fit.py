"""Which of a run's models can answer it, and what those that take no pictures read in a session that has some.

A picture of the new turn is what is asked about, so only models that take it may answer. Of an earlier one they are
told that it was there, and go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from service.agent.conversation import Conversation
from service.core.messages import Image, Message, Text
from service.models.catalog import ChosenModel
from service.models.provider import ModelEvent, ModelRequest, Provider

#: What such a model reads in the place of a picture.
NOTE = "\n[picture left out: this model takes no pictures]\n"


def fit_choices(
    choices: Sequence[ChosenModel], conversation: Conversation, *, with_functions: bool
) -> tuple[ChosenModel, ...]:
    """Of `choices` those that can answer what is new, each able to read whatever pictures came before.

    With the caller's functions on offer only those that can call them. The first is known to be one of them
    (`service.agent.request.check_model`).
    """
    if with_functions:
        choices = [choice for choice in choices if choice.calls_functions]
    if any(message.has_image for message in conversation.new):
        return tuple(choice for choice in choices if choice.takes_images)
    if any(message.has_image for message in conversation.history):
        return tuple(choice if choice.takes_images else _with_notes(choice) for choice in choices)
    return tuple(choices)


def _with_notes(choice: ChosenModel) -> ChosenModel:
    return replace(choice, provider=_NotesForPictures(choice.provider), takes_images=True)


class _NotesForPictures:
    """A provider whose model reads `NOTE` for each picture."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def stream(self, request: ModelRequest) -> Iterator[ModelEvent]:
        """See `Provider.stream`."""
        if any(message.has_image for message in request.messages):
            request = replace(request, messages=tuple(map(_noted, request.messages)))
        return self._provider.stream(request)

    def close(self) -> None:
        """Nothing is held: the provider belongs to the catalog."""


def _noted(message: Message) -> Message:
    if not message.has_image:
        return message
    parts = (Text(NOTE) if isinstance(part, Image) else part for part in message.parts)
    return replace(message, parts=tuple(parts))
