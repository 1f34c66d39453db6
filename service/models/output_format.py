"""Formats of an answer that a request asks for (`response_format`), and models that cannot be held to them.

A format that the gateway checks itself (`is_checked`) may be left out of a provider's request: the model then reads it
as an instruction, and an answer that does not follow it never reaches the caller.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from service.core.messages import Sampling
from service.models.provider import ModelRequest
from service.models.request_styles import NOT_KNOWN

JSON_OBJECT, JSON_SCHEMA = "json_object", "json_schema"

logger = logging.getLogger("openclaw.models")

# Groq calls it "json mode", Google "a response mime type".
_ABOUT_A_FORMAT = re.compile(
    r"response[_ ]?format|json[_ ]?(schema|mode)|output_(config|format)|structured[_ ]?outputs?|grammar|guided"
    r"|response[_ ]?mime[_ ]?type",
    re.IGNORECASE,
)
_REFUSES_A_TYPE = re.compile(NOT_KNOWN.pattern + "|unavailable", re.IGNORECASE)
_ABOUT_A_SCHEMA = re.compile(r"\bschema\b|propert|keyword|grammar", re.IGNORECASE)
_ABOUT_TOOLS = re.compile(r"\btools?\b|\bfunctions?\b", re.IGNORECASE)


def strict_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the format of answers that are valid against `schema`."""
    return {"type": JSON_SCHEMA, JSON_SCHEMA: {"name": "answer", "strict": True, "schema": schema}}


def schema_of(response_format: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the JSON schema of a format, `None` if it has none."""
    return (response_format.get(JSON_SCHEMA) or {}).get("schema")


def is_checked(response_format: Mapping[str, Any] | None) -> bool:
    """Return True if answers are checked: for `json_object`, and for a schema with `strict`."""
    if response_format is None:
        return False
    if response_format.get("type") == JSON_SCHEMA:
        return bool(response_format[JSON_SCHEMA].get("strict")) and schema_of(response_format) is not None
    return response_format.get("type") == JSON_OBJECT


def checked_format(sampling: Sampling) -> str | None:
    """Return the type of a format that is checked, the name under which a style leaves it out; else `None`."""
    wanted = sampling.response_format
    return str(wanted["type"]) if wanted is not None and is_checked(wanted) else None


def refused_format(request: ModelRequest, left_out: Collection[str], message: str) -> tuple[frozenset[str], bool]:
    """Return the type of the request's checked format if a provider's error message refuses it; else nothing.

    The second value is true if it refuses the type itself, and false if it may accept another schema, or the type
    without tools.
    """
    checked = checked_format(request.sampling)
    if checked is None or checked in left_out or not _ABOUT_A_FORMAT.search(message):
        return frozenset(), False
    logger.info("the model %s refuses the format %s, and gets it as an instruction", request.model, checked)
    is_conditional = _ABOUT_A_SCHEMA.search(message) or (request.functions and _ABOUT_TOOLS.search(message))
    return frozenset((checked,)), bool(_REFUSES_A_TYPE.search(message)) and not is_conditional


def to_instruction(response_format: Mapping[str, Any]) -> str:
    """Word a format for a model that cannot be held to it."""
    schema = schema_of(response_format)
    if schema is None:
        return "Answer with one JSON object and nothing else: no other text, no Markdown."
    text = orjson.dumps(schema, default=dict).decode()
    return f"Answer with JSON that is valid against this schema and nothing else: no other text, no Markdown.\n{text}"


def with_instruction(system: str, response_format: Mapping[str, Any]) -> str:
    """Add the instruction to a system prompt."""
    return "\n\n".join(filter(None, (system, to_instruction(response_format))))
