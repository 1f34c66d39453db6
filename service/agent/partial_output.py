"""The output of a run so far, as it will be stored."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.core.messages import Message, Role, StopReason, Text, Usage


@dataclass(slots=True)
class PartialOutput:
    """The output of a run so far.

    `messages` go to the transcript: assistant messages and the results of the agent's own tools.
    """

    messages: list[Message] = field(default_factory=list)
    stop_reason: StopReason = StopReason.STOP
    usage: Usage = Usage()
    pieces: list[str] = field(default_factory=list)  # of the unfinished message
    summary: Message | None = None  # replaces the beginning of the conversation
    kept: int = 0  # earlier messages that the summary does not replace; negative: it replaces some of `messages`, too

    def to_messages(self) -> tuple[Message, ...]:
        """Return the messages for the transcript, including the unfinished one."""
        text = "".join(self.pieces)
        return (*self.messages, Message(Role.ASSISTANT, (Text(text),))) if text else tuple(self.messages)
