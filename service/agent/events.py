"""What a run tells its readers, in order: text and tool calls as they come, then exactly one `RunEnded`."""

from __future__ import annotations

from service.core.dataclass import record
from service.core.errors import GatewayError, forget_frames
from service.core.messages import StopReason, ToolCall, Usage


@record
class RunStarted:
    """The run goes on from here: it has its session and its room. Told to those who look on; not part of the log."""


@record
class TextDelta:
    """The model wrote `text` next."""

    text: str


@record
class TextRetracted:
    """The last `characters` of the text so far do not hold any more: the model failed and begins its message anew.

    Only in runs that nobody reads piece by piece.
    """

    characters: int


@record
class ToolStarted:
    """The agent begins to carry out a call of one of its own tools."""

    call: ToolCall


@record
class ToolEnded:
    """What came of it: `text` is what the model is told, `failed` whether that is about a failure."""

    call: ToolCall
    text: str
    failed: bool


@record
class ToolCallRequested:
    """The model asks the caller to call a function: complete, told once, in the order of the model's answer."""

    index: int
    call: ToolCall


@record
class RunEnded:
    """The run is over: nothing follows. With `error` it failed; what was said before stays said.

    A successful end is told after the turn has been committed to the session's transcript.
    """

    stop_reason: StopReason = StopReason.STOP
    usage: Usage = Usage()
    error: GatewayError | None = None

    def __post_init__(self) -> None:
        if self.error is not None:
            forget_frames(self.error)  # the end is kept for a while


RunEvent = TextDelta | TextRetracted | ToolStarted | ToolEnded | ToolCallRequested | RunEnded
