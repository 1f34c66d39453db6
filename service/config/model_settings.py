"""The settings of an agent's models, below those of a request, and the models' short names.

Keys are OpenClaw's: `params` of all agents, of one model, of an agent's model, of an agent; later ones win key by key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from service.config.problems import Section
from service.config.types import Positive
from service.core.messages import Sampling

#: OpenClaw's levels of thinking. "adaptive" leaves the effort to the model.
ThinkingLevel = Literal["off", "minimal", "low", "medium", "high", "xhigh", "adaptive", "max"]

_LEVELS = {"off": "none", "adaptive": None}


def _alias(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or "/" in text or not text:
        raise ValueError("an alias is made of printable ASCII characters other than blanks and slashes")
    return text


class ModelParams(Section):
    """Sampling parameters of requests that do not set them."""

    temperature: Annotated[float | None, Field(strict=True, ge=0, le=2)] = None
    """Temperature, from 0 to 2. Not used for a request with its own `temperature` or `top_p`."""
    top_p: Annotated[float | None, Field(strict=True, ge=0, le=1)] = None
    """Nucleus sampling, from 0 to 1. Not used for a request with its own `temperature` or `top_p`."""
    max_tokens: Positive | None = None
    """Most tokens of one answer."""
    text_verbosity: Literal["low", "medium", "high"] | None = None
    """Length of answers, for models that can be asked for it."""


class ModelEntry(Section):
    """Settings of one model."""

    alias: Annotated[str, AfterValidator(_alias)] | None = None
    """Short name, valid wherever a model is named."""
    params: ModelParams = ModelParams()
    """Sampling parameters of requests that do not set them."""


def to_sampling(layers: Iterable[ModelParams], thinking: ThinkingLevel | None) -> Sampling:
    """Merge `layers`, later ones first in precedence, and the level of thinking."""
    values: dict[str, Any] = {}
    for layer in layers:
        values |= {name: value for name in layer.model_fields_set if (value := getattr(layer, name)) is not None}
    hints = {
        "reasoning_effort": None if thinking is None else _LEVELS.get(thinking, thinking),
        "verbosity": values.pop("text_verbosity", None),
    }
    return Sampling(**values, extra={name: value for name, value in hints.items() if value is not None})
