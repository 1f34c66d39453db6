"""Context windows learned from provider error messages.

Kept until the configuration changes or the process ends. A configured window is only ever lowered. Token limits per
minute are kept as well: no single request can exceed them.
"""

from __future__ import annotations

from dataclasses import replace

from service.core.messages import Usage
from service.models.catalog import ChosenModel

_MAX_MODELS = 256


class LearnedWindows:
    """The smallest reported limits of the most recently used models, by `provider/model`."""

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}

    def observe(self, ref: str, tokens: int) -> None:
        """Record that the model `ref` takes `tokens`, the answer included."""
        known = self._tokens.pop(ref, tokens)  # the latest goes last
        self._tokens[ref] = min(known, tokens)
        if len(self._tokens) > _MAX_MODELS:
            del self._tokens[next(iter(self._tokens))]

    def observe_usage(self, ref: str, usage: Usage) -> None:
        """Drop the learned limit of `ref` if `usage` exceeds it."""
        limit = self._tokens.get(ref)
        if limit is not None and usage.input_tokens + usage.output_tokens > limit:
            del self._tokens[ref]

    def narrowed(self, model: ChosenModel) -> ChosenModel:
        """Return `model` with the smaller of its configured and learned windows."""
        if not self._tokens:
            return model
        learned, configured = self._tokens.get(model.ref), model.context_window
        if learned is None or (configured is not None and configured <= learned):
            return model
        return replace(model, context_window=learned)
