"""Events of a run's log, in order: text and tool calls as they come, then exactly one `RunEnded`."""

from __future__ import annotations

from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import StopReason, ToolCall, Usage
from service.storage.runs.records import RunState

#: Separator of two messages of one answer in its output, and of the reasoning that led to them.
PARAGRAPH = "\n\n"


@record
class RunStarted:
    """The run has its session and its room. Observers get it; it is not part of the log."""


@record
class TextDelta:
    """The model wrote `text` next."""

    text: str


@record
class TextRetracted:
    """The last `characters` of the text so far are void: the model failed and restarts its message.

    Only in runs whose output is not streamed.
    """

    characters: int


@record
class ReasoningDelta:
    """The model thought `text` next. Only in runs whose reasoning may be shown."""

    text: str


@record
class ReasoningRetracted:
    """The last `characters` of the reasoning so far are void, as those of a text are (`TextRetracted`).

    Only in runs whose caller does not see the reasoning while it is written.
    """

    characters: int


@record
class ToolStarted:
    """Execution of a call of one of the agent's own tools begins."""

    call: ToolCall


@record
class ToolEnded:
    """The result of a tool call: `text` is what the model reads, `failed` marks it as an error."""

    call: ToolCall
    text: str
    failed: bool
    duration_ms: int = 0


@record
class ToolCallWritten:
    """The model wrote `text` next in the arguments of a call of the caller's functions.

    Only where the output is streamed, and of the calls whose `ToolCallRequested` will follow. It has no number.
    """

    index: int
    id: str
    name: str
    text: str


@record
class ToolCallRequested:
    """A complete call of one of the caller's functions, in the order of the model's answer."""

    index: int
    call: ToolCall


@record
class StepEnded:
    """A model call has ended that another one follows; `usage` is that of the run so far."""

    usage: Usage


@record
class ApprovalRequested:
    """A person has to decide about a tool call; `arguments` is JSON."""

    id: str
    tool: str
    arguments: str
    tool_call_id: str


@record
class ApprovalClosed:
    """A decision was made, or none will be: `state` is an `ApprovalState`."""

    id: str
    state: str
    decision: str | None


@record
class RunEnded:
    """The end of the run: nothing follows. With `error` it failed; earlier output stays valid, and `usage` counts.

    A successful end is appended after the turn has been committed to the session's transcript.
    """

    stop_reason: StopReason = StopReason.STOP
    usage: Usage = Usage()
    error: GatewayError | None = None

    @property
    def state(self) -> RunState:
        """The final state it gives the run."""
        if self.error is None:
            return RunState.OK
        return RunState.ABORTED if self.error.code == "run_aborted" else RunState.ERROR


RunEvent = (
    TextDelta
    | TextRetracted
    | ReasoningDelta
    | ReasoningRetracted
    | ToolStarted
    | ToolEnded
    | ToolCallWritten
    | ToolCallRequested
    | StepEnded
    | ApprovalRequested
    | ApprovalClosed
    | RunEnded
)
