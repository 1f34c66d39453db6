"""The reasoning of a run's models in the run's log."""

from __future__ import annotations

from service.agent.events import PARAGRAPH, ReasoningDelta, ReasoningRetracted
from service.agent.run import Run
from service.core.errors import GatewayError

#: Limit of the reasoning of one model call.
_MAX_CHARACTERS = 4 * 1024 * 1024


class ReasoningLog:
    """Appends the reasoning of each model call to the log of `run` as it arrives (a `DraftReceiver`).

    With `is_binding` the caller reads it while it is written, so that the call cannot be repeated afterwards.
    """

    def __init__(self, run: Run, *, is_binding: bool) -> None:
        self.is_binding = is_binding
        self._run = run
        self._has_earlier = False
        self._characters = 0  # of the current call

    @property
    def has_shown(self) -> bool:
        """True if the caller has read reasoning of the current call."""
        return self.is_binding and self._characters > 0

    def add_reasoning(self, text: str) -> None:
        """Append a piece. Raises `GatewayError` (`provider_error`) for reasoning without end."""
        if not self._characters and self._has_earlier:
            text = f"{PARAGRAPH}{text}"
        self._characters += len(text)
        if self._characters > _MAX_CHARACTERS:
            raise GatewayError("provider_error", f"The model's reasoning exceeds {_MAX_CHARACTERS} characters.")
        self._run.append(ReasoningDelta(text))

    def take_back(self) -> None:
        """Retract what the current call has added."""
        if self._characters:
            self._run.append(ReasoningRetracted(self._characters))
        self._characters = 0

    def end_call(self) -> None:
        """Keep what the current call has added."""
        self._has_earlier = self._has_earlier or self._characters > 0
        self._characters = 0
