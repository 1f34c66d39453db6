"""Select the models that can answer a run.

Images in the new messages require a model with image input. Images in the history are replaced by notes for models
without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from service.agent.conversation import Conversation
from service.core.messages import Image, Message, Text
from service.models.catalog import ChosenModel
from service.models.provider import ModelEnded, ModelRequest, Provider, TextReceiver

#: Replacement of an image for models without image input.
NOTE = "\n[picture left out: this model takes no pictures]\n"


def fit_choices(
    choices: Sequence[ChosenModel], conversation: Conversation, *, with_functions: bool
) -> tuple[ChosenModel, ...]:
    """Return the `choices` that can answer the new messages, adapted to images in the history.

    `with_functions` requires models that can call functions. The first choice always qualifies
    (`service.agent.request.check_model`).
    """
    if with_functions:
        choices = [choice for choice in choices if choice.calls_functions]
    blind = [choice for choice in choices if not choice.takes_images]
    if not blind:
        return tuple(choices)
    if any(message.has_image for message in conversation.new):
        return tuple(choice for choice in choices if choice.takes_images)
    if any(message.has_image for message in conversation.history):
        return tuple(choice if choice.takes_images else _with_notes(choice) for choice in choices)
    return tuple(choices)


def _with_notes(choice: ChosenModel) -> ChosenModel:
    return replace(choice, provider=_NotesForPictures(choice.provider), takes_images=True)


class _NotesForPictures:
    """A provider that replaces each image with `NOTE`."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def ask(self, request: ModelRequest, on_text: TextReceiver) -> ModelEnded:
        """See `Provider.ask`."""
        if any(message.has_image for message in request.messages):
            request = replace(request, messages=tuple(map(_noted, request.messages)))
        return self._provider.ask(request, on_text)

    def close(self) -> None:
        """Do nothing: the provider belongs to the catalog."""


def _noted(message: Message) -> Message:
    if not message.has_image:
        return message
    parts = (Text(NOTE) if isinstance(part, Image) else part for part in message.parts)
    return replace(message, parts=tuple(parts))
