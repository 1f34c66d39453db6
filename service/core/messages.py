"""The messages of a conversation, independent of any wire format.

APIs and model dialects translate to and from these immutable values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from service.core.dataclass import record, replace

#: The user message of a request that has only instructions, for models that require one.
NO_USER_MESSAGE = "(There is no message from the user. Follow the instructions.)"


class Role(StrEnum):
    """The author of a message. Developer messages are system messages; a tool message is a tool's result."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class StopReason(StrEnum):
    """The reason the model stopped."""

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
    """An image: `url` is a `data:` URI; `detail` is `auto`, `low` or `high`."""

    url: str
    detail: str = "auto"


Part = Text | Image


@record
class ToolCall:
    """A tool call requested by the model. `arguments` is the model's JSON text, valid or not."""

    id: str
    name: str
    arguments: str


@record
class ProviderData:
    """Opaque data that a model attaches to a message with tool calls and requires back: reasoning, signatures.

    Only the dialect that read it can interpret it, and it is sent back only to `model` (`provider/model`), its author.
    `message` belongs to the message as a whole, `calls` to its calls by id; both are JSON.
    """

    message: Mapping[str, Any]
    calls: Mapping[str, Mapping[str, Any]]
    model: str = ""

    def renamed(self, ids: Mapping[str, str]) -> ProviderData:
        """Return the data with its calls renamed by `ids`."""
        return ProviderData(
            self.message, {ids[one]: data for one, data in self.calls.items() if one in ids}, self.model
        )


class ApprovalDecision(StrEnum):
    """A person's decision on a tool call. `ALLOW_SESSION` covers later calls in the session, too."""

    ALLOW_ONCE = "allow-once"
    ALLOW_SESSION = "allow-session"
    DENY = "deny"


@record
class ToolApproval:
    """The decision that a tool call needed, in ms since the epoch; `decided_by` is `None` if nobody decided in time."""

    id: str
    decision: ApprovalDecision
    decided_by: str | None
    decided_at_ms: int


@record
class Message:
    """One message of a conversation.

    `parts` is the content in order; `tool_calls` only on assistant messages; `tool_call_id` only on, and always on,
    tool messages; `name` distinguishes participants of one role. `provider_data` is no part of the content: equality
    ignores it. `cut_off` is the reason why an assistant message is incomplete. `approval` is the decision on the call
    that a tool message is the result of, and no part of the content; neither are `at_ms`, when the message was complete
    in ms since the epoch, `duration_ms`, how long the tool took, and `failed`, set if that is an error's message.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    provider_data: ProviderData | None = field(default=None, compare=False, repr=False)
    cut_off: str | None = None
    approval: ToolApproval | None = field(default=None, compare=False)
    at_ms: int | None = field(default=None, compare=False)
    duration_ms: int | None = field(default=None, compare=False)
    failed: bool = field(default=False, compare=False)

    @property
    def text(self) -> str:
        """The text parts joined without a separator."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Text):  # as in most messages
            return self.parts[0].text
        return "".join([part.text for part in self.parts if isinstance(part, Text)])

    @property
    def has_image(self) -> bool:
        """True if any part is an image."""
        for part in self.parts:  # noqa: SIM110 - half the time of a generator, for every message of a conversation
            if isinstance(part, Image):
                return True
        return False


def to_unicode(text: str) -> str:
    """Return `text` with U+FFFD for lone surrogates, which can be neither sent nor stored; pairs are joined."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text_message(role: Role, text: str) -> Message:
    """Return a message with a single text part."""
    return Message(role, (Text(text),))


@record
class Usage:
    """Token counts of one or more model calls, as reported by the provider, and what they cost.

    `reasoning_tokens` is the part of the output that the model has thought; `None` if a provider does not report it.
    `cache_write_tokens` is the part of the input that the provider put into its cache. `cost_nano` is in nano-dollars
    (1e-9 USD), `None` if the cost of a call is not known; it is no part of the counts.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int | None = None
    cache_write_tokens: int = 0
    cost_nano: int | None = field(default=0, compare=False)

    def __add__(self, other: Usage) -> Usage:
        if self == NO_USAGE and self.cost_nano == 0:
            return other  # in most runs there is only one call
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self._added_reasoning(other),
            self.cache_write_tokens + other.cache_write_tokens,
            None if self.cost_nano is None or other.cost_nano is None else self.cost_nano + other.cost_nano,
        )

    def _added_reasoning(self, other: Usage) -> int | None:
        if not self.output_tokens:
            return other.reasoning_tokens
        if not other.output_tokens:
            return self.reasoning_tokens
        if self.reasoning_tokens is None or other.reasoning_tokens is None:
            return None
        return self.reasoning_tokens + other.reasoning_tokens


#: Nothing counted, and no cost.
NO_USAGE = Usage()


@record
class Function:
    """A function the model may call: `parameters` is the JSON schema of its arguments.

    The caller carries out those that are `from_caller`; the others are the agent's tools.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None
    from_caller: bool = False


class ToolChoiceMode(StrEnum):
    """The mode of a tool choice."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@record
class ToolChoice:
    """The caller's constraint on tool calls: with `name` (mode `required`), exactly that function."""

    mode: ToolChoiceMode = ToolChoiceMode.AUTO
    name: str | None = None


@record
class Sampling:
    """Sampling parameters. `None` leaves the provider's default; the API has checked the bounds.

    `max_tokens` limits the answer. `response_format` is OpenAI's object, `extra` further fields of the contract that
    providers accept under the same name (`logit_bias`, `reasoning_effort`, `verbosity`, ...).
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

    def over(self, defaults: Sampling) -> Sampling:
        """Return these parameters with the temperature, `top_p`, answer limit and `extra` fields of `defaults`.

        They apply where these have none. Temperature and `top_p` are one choice: many models refuse both together.
        """
        chooses = self.temperature is not None or self.top_p is not None
        return replace(
            self,
            temperature=self.temperature if chooses else defaults.temperature,
            top_p=self.top_p if chooses else defaults.top_p,
            max_tokens=self.max_tokens or defaults.max_tokens,
            extra={**defaults.extra, **self.extra},
        )
