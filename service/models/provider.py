"""The provider protocol, implemented by each dialect, with its requests and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from service.core.dataclass import record
from service.core.messages import Function, Message, ProviderData, Sampling, StopReason, ToolCall, ToolChoice, Usage
from service.models.drafts import DraftReceiver

#: Answer length assumed without a limit, in tokens; every Claude since 3.5 supports it.
DEFAULT_ANSWER_TOKENS = 8_192


@record
class ModelRequest:
    """One model call.

    `model` is the provider's own id, or `provider/model` before a provider is chosen. `system` may be empty; `messages`
    have no system role. With `collected` only the complete answer is used, so that it may be restarted after a failure.
    `held` means the same of an answer that is read once it has been checked.
    With `continued` the first messages are those of an earlier request, as the same objects. The first `unsigned` ones
    are known to have no provider data. `drafts` receives what the model writes beside its text; `None` costs nothing.
    """

    model: str
    system: str
    messages: tuple[Message, ...]
    functions: tuple[Function, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    sampling: Sampling = Sampling()
    collected: bool = False
    held: bool = False
    continued: bool = False
    unsigned: int = 0
    drafts: DraftReceiver | None = None


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


#: Receives the pieces of an answer's text, none of them empty, in order.
TextReceiver = Callable[[str], None]


class Provider(Protocol):
    """A service that runs models."""

    def ask(self, request: ModelRequest, on_text: TextReceiver) -> ModelEnded:
        """Send the request, pass its text to `on_text` as it arrives, and return the end.

        An exception raised by `on_text`, or thrown into the waiting greenlet, ends the upstream request.
        Raises `GatewayError`: `provider_rejected_request`, `provider_authentication_failed`, `rate_limit_exceeded`,
        `provider_error` (5xx, garbage, a connection dropped in mid-answer), `provider_unavailable` (no connection)
        or `provider_timeout`. An answer without an explicit end is an error, never a short answer.
        """
        ...

    def close(self) -> None:
        """Close connections and child processes. The provider is not used afterwards. Idempotent."""
        ...


class RestartingProvider(Protocol):
    """A provider that may ask again after a part of the answer has come."""

    def ask(self, request: ModelRequest, on_text: TextReceiver, on_restart: Callable[[], None]) -> ModelEnded:
        """Ask like `Provider.ask`; after `on_restart` the text so far is not part of the answer."""
        ...
