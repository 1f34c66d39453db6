"""The provider protocol, implemented by each dialect, with its requests and events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from service.core.dataclass import record
from service.core.messages import Function, Message, ProviderData, Sampling, StopReason, ToolCall, ToolChoice, Usage

#: Answer length assumed without a limit, in tokens; every Claude since 3.5 supports it.
DEFAULT_ANSWER_TOKENS = 8_192


@record
class ModelRequest:
    """One model call.

    `model` is the provider's own id, or `provider/model` before a provider is chosen. `system` may be empty; `messages`
    have no system role. With `collected` only the complete answer is used, so that it may be restarted after a failure
    (`ModelRestarted`).
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
    """The next piece of the answer's text, never empty."""

    text: str


@record
class ModelEnded:
    """The end of a complete answer.

    `tool_calls` are complete and in order; `usage` is the provider's count, zero where it sent none; `provider_data`
    goes back to the provider with the calls, its `model` still unset.
    """

    stop_reason: StopReason
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    provider_data: ProviderData | None = None


@record
class ModelRestarted:
    """The answer failed and restarts; the text so far is not part of it. Only emitted for restartable answers."""


ModelEvent = ModelText | ModelEnded | ModelRestarted


class Provider(Protocol):
    """A service that runs models."""

    def stream(self, request: ModelRequest) -> Iterator[ModelEvent]:
        """Send the request and yield the answer as it arrives, `ModelEnded` last.

        Closing the iterator, or an exception thrown into the greenlet that waits in it, ends the upstream request.
        Raises `GatewayError`: `provider_rejected_request`, `provider_authentication_failed`, `rate_limit_exceeded`,
        `provider_error` (5xx, garbage, a connection dropped in mid-answer), `provider_unavailable` (no connection)
        or `provider_timeout`. An answer without an explicit end is an error, never a short answer.
        """
        ...

    def close(self) -> None:
        """Close connections and child processes. The provider is not used afterwards. Idempotent."""
        ...
