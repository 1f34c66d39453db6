"""What a model provider is: one protocol, implemented by each wire dialect beside this file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from service.core.dataclass import record
from service.core.messages import Function, Message, ProviderData, Sampling, StopReason, ToolCall, ToolChoice, Usage

#: How many tokens an answer is taken to need where nobody bounds it; every Claude since 3.5 can give as many.
DEFAULT_ANSWER_TOKENS = 8_192


@record
class ModelRequest:
    """One call of a model.

    `model` is the provider's own id, or `provider/model` while it is open whom the request will be put to. `system` is
    one text (may be empty); `messages` hold no system role. Of an answer that is `collected` only the whole counts: it
    may fail in the middle and begin anew, which `ModelRestarted` tells.
    """

    model: str
    system: str
    messages: tuple[Message, ...]
    functions: tuple[Function, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    sampling: Sampling = Sampling()
    collected: bool = False


@record
class ModelText:
    """The model wrote `text` next; never empty."""

    text: str


@record
class ModelEnded:
    """The model's turn is complete; nothing follows.

    `tool_calls` are complete and in order; `usage` is what the provider counted, zeros where it did not say;
    `provider_data` is what it wants back with the calls, its `model` not yet told.
    """

    stop_reason: StopReason
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    provider_data: ProviderData | None = None


@record
class ModelRestarted:
    """The answer failed and begins anew: the text so far is not part of it. Only told to those who can take it back."""


ModelEvent = ModelText | ModelEnded | ModelRestarted


class Provider(Protocol):
    """A place that runs models."""

    def stream(self, request: ModelRequest) -> Iterator[ModelEvent]:
        """Ask the model and yield its answer as it is made, `ModelEnded` last.

        Closing the iterator, or an exception thrown into the greenlet that waits in it, ends the upstream request.
        Raises `GatewayError`: `provider_rejected_request`, `provider_authentication_failed`, `rate_limit_exceeded`,
        `provider_error` (5xx, garbage, a connection dropped in mid-answer), `provider_unavailable` (no connection)
        or `provider_timeout`. An answer that ends without saying so is an error, never a short answer.
        """
        ...

    def close(self) -> None:
        """Let go of connections and child processes. The provider is not used afterwards; twice is a no-op."""
        ...
