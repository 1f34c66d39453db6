"""How much each model takes, by the words of its provider when it refused more.

Known until the configuration is edited or the process ends. What is configured is only ever lowered. What an
organisation may use in a minute is no window, but bounds a request likewise.
"""

from __future__ import annotations

from dataclasses import replace

from service.core.messages import Usage
from service.models.catalog import ChosenModel

_MAX_MODELS = 256


class LearnedWindows:
    """The least that providers said of their models, for those that were spoken of last; by `provider/model`."""

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}

    def observe(self, ref: str, tokens: int) -> None:
        """Learn that the model `ref` takes `tokens`, the answer included."""
        known = self._tokens.pop(ref, tokens)  # the latest stands last
        self._tokens[ref] = min(known, tokens)
        if len(self._tokens) > _MAX_MODELS:
            del self._tokens[next(iter(self._tokens))]

    def observe_usage(self, ref: str, usage: Usage) -> None:
        """Forget what the model `ref` was said to take if it has just taken more."""
        told = self._tokens.get(ref)
        if told is not None and usage.input_tokens + usage.output_tokens > told:
            del self._tokens[ref]

    def narrowed(self, model: ChosenModel) -> ChosenModel:
        """`model` with the window that it has by all that is known."""
        told, configured = self._tokens.get(model.ref), model.context_window
        if told is None or (configured is not None and configured <= told):
            return model
        return replace(model, context_window=told)
