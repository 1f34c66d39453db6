"""The configuration's section on side requests of chat programs: titles, tags, follow-up questions, completions."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

from pydantic import Field

from service.config.problems import Section
from service.config.types import ModelReference

#: How the default prompts of Open WebUI (0.5 to 0.6) and LibreChat (0.7 and 0.8) begin, with single spaces.
DEFAULT_MARKERS = (
    "### Task: Generate a concise",
    "### Task: Generate 1-3 broad tags",
    "### Task: Suggest 3-5 relevant follow-up questions",
    "### Task: Analyze the chat history to determine the necessity of generating search queries",
    "### Task: You are an autocompletion system",
    "### Task: Generate a detailed prompt for",
    "Your task is to reflect the speaker's likely facial expression through a fitting emoji",
    "You have been provided with a set of responses from various models to the latest user query",
    "Provide a concise, 5-word-or-less title for the conversation",
    "Please generate a concise, 5-word-or-less title for the conversation",
    "Please generate a concise title (max 40 characters) for a conversation",
    "Analyze this conversation and provide: 1. The detected language of the conversation",
)

Marker = Annotated[str, Field(min_length=8, pattern=r"\S")]


class TasksConfig(Section):
    """Side requests of chat programs. They belong to no session and get none of the agent's tools."""

    model: ModelReference | None = None
    """Model for side requests, as "provider/model". Unset: the agent's model."""
    markers: tuple[Marker, ...] = DEFAULT_MARKERS
    """Beginnings of their prompts: a request with a single message that begins with one is a side request, as is one
    with the header `x-openclaw-task`. Case and white space do not count. By default Open WebUI's and LibreChat's."""

    @cached_property
    def beginnings(self) -> tuple[str, ...]:
        """The markers as `normalize` returns them."""
        return tuple(map(normalize, self.markers))


def normalize(text: str) -> str:
    """Return `text` with single spaces and without case."""
    return " ".join(text.split()).casefold()
