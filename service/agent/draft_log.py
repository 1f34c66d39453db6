"""The log of what a run's models write beside their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service.agent.events import PARAGRAPH, ReasoningDelta, ReasoningRetracted, ToolCallWritten
from service.agent.run import Run
from service.core.errors import GatewayError
from service.core.ids import new_call_id
from service.core.messages import ToolCall

#: Limit of the reasoning of one model call.
_MAX_CHARACTERS = 4 * 1024 * 1024

#: Returns which of the caller's calls the last of an answer's calls is, by their names; `None` if it is none.
IndexOf = Callable[[Sequence[str]], int | None]


@dataclass(slots=True)
class _ShownCall:
    """A call whose arguments the caller reads while they are written."""

    index: int
    id: str
    name: str
    pieces: list[str] = field(default_factory=list)


class DraftLog:
    """Appends the drafts of each model call to the log of `run` as they arrive (a `DraftReceiver`).

    With `reasoning` that is the reasoning of the models; with `is_binding` the caller reads it while it is written.
    With `wants_calls` the arguments of the caller's functions are appended, too. Once the
    caller has read a draft, its model is not retried.
    """

    def __init__(self, run: Run, *, reasoning: bool, is_binding: bool, wants_calls: bool) -> None:
        self.is_binding = is_binding
        self.wants_calls = wants_calls
        self._reasoning = reasoning
        self._run = run
        self._has_earlier = False
        self._characters = 0  # of the current call
        self._index_of: IndexOf = lambda _: None
        self._shown: dict[int, _ShownCall | None] = {}  # by their places in the answer

    @property
    def has_shown(self) -> bool:
        """True if the caller has read a draft of the current call."""
        return (self.is_binding and self._characters > 0) or any(self._shown.values())

    def begin_call(self, index_of: IndexOf) -> None:
        """Begin a model call."""
        self._index_of = index_of

    def add_reasoning(self, text: str) -> None:
        """Append a piece. Raises `GatewayError` (`provider_error`) for reasoning without end."""
        if not self._reasoning:
            return
        if not self._characters and self._has_earlier:
            text = f"{PARAGRAPH}{text}"
        self._characters += len(text)
        if self._characters > _MAX_CHARACTERS:
            raise GatewayError("provider_error", f"The model's reasoning exceeds {_MAX_CHARACTERS} characters.")
        self._run.append(ReasoningDelta(text))

    def add_arguments(self, names: Sequence[str], text: str) -> None:
        """Append a piece, if the call is one of the caller's, and those before it were begun, too."""
        place = len(names) - 1
        if place not in self._shown:
            index, begun = self._index_of(names), sum(one is not None for one in self._shown.values())
            self._shown[place] = _ShownCall(begun, new_call_id(), names[place]) if index == begun else None
        call = self._shown[place]
        if call is not None:
            call.pieces.append(text)
            self._run.append(ToolCallWritten(call.index, call.id, call.name, text))

    def settle_calls(self, received: Sequence[ToolCall], asked: Sequence[ToolCall]) -> dict[str, str]:
        """Return the ids of calls that the caller has received, by their own.

        `received` are all calls of the answer, `asked` those of the caller's functions. Raises `GatewayError`
        (`provider_error`) if they are not what the caller has read.
        """
        ids: dict[str, str] = {}
        for place, shown in self._shown.items():
            if shown is None:
                continue
            call = asked[shown.index] if shown.index < len(asked) else None
            if call is None or place >= len(received) or received[place] is not call or not _continues(shown, call):
                text = "The model did not finish a function call, or changed it, after its beginning had been streamed."
                raise GatewayError("provider_error", text)
            ids[call.id] = shown.id
        return ids

    def take_back(self) -> None:
        """Retract what the current call has added."""
        if self._characters:
            self._run.append(ReasoningRetracted(self._characters))
        self._characters = 0

    def end_call(self) -> None:
        """Keep what the current call has added."""
        self._has_earlier = self._has_earlier or self._characters > 0
        self._characters = 0
        self._shown.clear()


def _continues(shown: _ShownCall, call: ToolCall) -> bool:
    return call.name == shown.name and call.arguments.startswith("".join(shown.pieces))
