"""Signals of this process: events, emitted where they happen, for metrics and other subscribers.

An event that nobody receives need not be made. Receivers are called in the greenlet that emits and must not wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from service.core.dataclass import record
from service.core.messages import Message, Sampling, ToolCall, Usage

T = TypeVar("T")

logger = logging.getLogger("openclaw.signals")


class Signal(Generic[T]):
    """A kind of event, with its receivers."""

    def __init__(self) -> None:
        self.receivers: tuple[Callable[[T], None], ...] = ()

    def connect(self, receiver: Callable[[T], None]) -> None:
        """Call `receiver` with every event from now on."""
        self.receivers = (*self.receivers, receiver)

    def disconnect(self, receiver: Callable[[T], None]) -> None:
        """Do not call `receiver` any more. A no-op if it is not connected."""
        self.receivers = tuple(one for one in self.receivers if one != receiver)

    def emit(self, event: T) -> None:
        """Call the receivers with `event`. Never raises: a defect of a receiver is logged."""
        for receiver in self.receivers:
            try:
                receiver(event)
            except Exception:
                logger.exception("a receiver of %s failed", type(event).__name__)


class Level:
    """A number of things in this process, read when it is asked for."""

    value = 0


@record
class RequestEnded:
    """An HTTP request has been answered, or its client is gone; a WebSocket counts when it is closed.

    `route` is the path as in the contract, `None` if it has none there; `seconds` since the first byte of the request.
    """

    method: str
    route: str | None
    status: int
    seconds: float


@record
class RunFinished:
    """A run has ended or was refused before it began, whatever its protocol.

    `model` is `provider/model`, `None` if none was asked. `outcome` is "ok" or an error code. `queued_seconds` is the
    wait for its session and slot, `seconds` the time from then on, `first_output_seconds` that to its first output.
    `reason` is what may be logged of a failure: no text of a message is part of it. `key_id` is the id of the caller's
    API key, `request_id` that of its HTTP request or WebSocket, `model_calls` counts the turns of the model.
    """

    run_id: str
    session_key: str
    key_id: str | None
    request_id: str | None
    agent: str
    protocol: str
    model: str | None
    outcome: str
    queued_seconds: float
    seconds: float | None
    first_output_seconds: float | None
    usage: Usage
    model_calls: int
    has_begun: bool
    reason: str | None


@record
class RunAccepted:
    """A run was accepted, and waits for its session and room; `accepted_at` is in seconds since 1970.

    It is emitted in the greenlet that will execute it. `caller_trace` are the caller's headers of W3C's Trace Context.
    """

    run_id: str
    session_key: str
    agent: str
    protocol: str
    accepted_at: float
    caller_trace: Mapping[str, str] | None
    key_id: str | None
    request_id: str | None


@record
class ModelCalling:
    """An attempt to have a model (`provider/model`) answer begins, in its greenlet.

    `attempt` counts those of this model for this answer from 1; the provider was not called during `waited_seconds`
    since the one before.
    """

    model: str
    attempt: int
    waited_seconds: float
    sampling: Sampling


@record
class ModelAnswered:
    """The content of an attempt that has ended: what was asked, and the output, complete or not."""

    system: str
    messages: Sequence[Message]
    text: str
    tool_calls: Sequence[ToolCall]
    stop_reason: str


@record
class ModelCalled:
    """One attempt to have a model (`provider/model`) answer has ended, in its greenlet; see `ModelCalling`.

    `outcome` is "ok" or an error code. `first_output_seconds` is the time to its first output, if there was any;
    `stop_reason` and `usage`, as counted by the provider, are those of a complete answer. `reason` is as in
    `RunFinished`.
    """

    model: str
    outcome: str
    attempt: int
    waited_seconds: float
    seconds: float
    first_output_seconds: float | None
    usage: Usage
    stop_reason: str | None
    reason: str | None


@record
class EmbeddingCalling:
    """A model (`provider/model`) is asked for embeddings, in this greenlet; see `RunAccepted` for the caller."""

    model: str
    agent: str
    dimensions: int | None
    caller_trace: Mapping[str, str] | None
    key_id: str | None
    request_id: str | None


@record
class EmbeddingCalled:
    """The end of `asked`, with all its attempts: `outcome` is "ok", "cancelled" or an error code.

    `reason` is as in `RunFinished`.
    """

    asked: EmbeddingCalling
    outcome: str
    seconds: float
    usage: Usage
    attempts: int
    reason: str | None


@record
class ModelReplaced:
    """A fallback is asked because a model failed with the error code `reason`."""

    model: str
    fallback: str
    reason: str


@record
class ToolCalling:
    """A call of a tool begins, in its greenlet; `name` is as in `ToolExecuted`."""

    name: str
    call_id: str


@record
class ToolExecuted:
    """A call of one of an agent's own tools has ended; unless it `is_known`, the agent has no tool of this `name`.

    `outcome` is "ok", "error", "denied" (by a person, or because none approved it in time) or "cancelled", `arguments`
    the JSON text from the model, `result` the text for it. `decided_by` is the person that decided about it, if any.
    """

    name: str
    is_known: bool
    outcome: str
    seconds: float
    run_id: str
    session_key: str
    agent: str
    arguments: str
    result: str
    decided_by: str | None


@record
class Committed:
    """A transaction of `operations` changes has ended: `outcome` is "ok", or "error" if it stored nothing."""

    operations: int
    outcome: str
    seconds: float


@record
class LoginFailed:
    """A caller presented a wrong token or password, or any while its address is locked out.

    `outcome` is the error code.
    """

    outcome: str


request_ended: Signal[RequestEnded] = Signal()
run_accepted: Signal[RunAccepted] = Signal()
run_finished: Signal[RunFinished] = Signal()
model_calling: Signal[ModelCalling] = Signal()
model_answered: Signal[ModelAnswered] = Signal()
model_called: Signal[ModelCalled] = Signal()
embedding_calling: Signal[EmbeddingCalling] = Signal()
embedding_called: Signal[EmbeddingCalled] = Signal()
model_replaced: Signal[ModelReplaced] = Signal()
tool_calling: Signal[ToolCalling] = Signal()
tool_executed: Signal[ToolExecuted] = Signal()
committed: Signal[Committed] = Signal()
login_failed: Signal[LoginFailed] = Signal()

#: Open streams of Server-Sent Events.
open_streams = Level()
