"""The words of a conversation: ours, never a wire's.

Doors and dialects translate to and from these. Everything here is a frozen value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from service.core.dataclass import record


class Role(StrEnum):
    """Who says a message. Developer texts are system texts here; a tool's message is its result."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class StopReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@record
class Text:
    """A piece of text."""

    text: str


@record
class Image:
    """A picture: `url` is a `data:` URI; `detail` is `auto`, `low` or `high`."""

    url: str
    detail: str = "auto"


Part = Text | Image


@record
class ToolCall:
    """The model asks for a tool. `arguments` is the JSON text as the model wrote it, valid or not."""

    id: str
    name: str
    arguments: str


@record
class ProviderData:
    """What a model adds to a message that calls tools and wants back with it: reasoning, signatures.

    Only the dialect that read it understands it, and only `model` (`provider/model`), which said it, is shown it again.
    `message` belongs to the message as a whole, `calls` to its calls, by their ids; both are JSON.
    """

    message: Mapping[str, Any]
    calls: Mapping[str, Mapping[str, Any]]
    model: str = ""

    def renamed(self, ids: Mapping[str, str]) -> ProviderData:
        """The same of calls that have other ids now."""
        return ProviderData(
            self.message, {ids[one]: data for one, data in self.calls.items() if one in ids}, self.model
        )


@record
class Message:
    """One message of a conversation.

    `parts` is what is said, in order; `tool_calls` only on assistant messages; `tool_call_id` only on, and always on,
    tool messages; `name` tells several participants of one role apart. `provider_data` is no part of what is said:
    with or without it a message is the same. `cut_off` is why an assistant's message ends before it was complete.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    provider_data: ProviderData | None = field(default=None, compare=False, repr=False)
    cut_off: str | None = None

    @property
    def text(self) -> str:
        """All text of the message, its parts joined without a separator."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def has_image(self) -> bool:
        """Whether any part is a picture."""
        return any(isinstance(part, Image) for part in self.parts)


def text_message(role: Role, text: str) -> Message:
    """A message that is one piece of text."""
    return Message(role, (Text(text),))


@record
class Usage:
    """Tokens of one or more model calls, as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@record
class Function:
    """A function the model may ask for: `parameters` is a JSON schema of its arguments."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None


class ToolChoiceMode(StrEnum):
    """How free the model is to call a function."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@record
class ToolChoice:
    """What the caller asks of the model: with `name` (mode `required`), exactly that function."""

    mode: ToolChoiceMode = ToolChoiceMode.AUTO
    name: str | None = None


@record
class Sampling:
    """How the model is asked to write. `None` is the provider's own default; bounds were checked at the door.

    `max_tokens` bounds the answer. `response_format` is the OpenAI object, `extra` further fields of the contract
    that providers know under the same name (`logit_bias`, `reasoning_effort`, `verbosity`, ...).
    """

    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    response_format: Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
