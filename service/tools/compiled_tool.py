"""A tool with the compiled schema of its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from service.core.schema_cost import is_cheap, steps_of
from service.tools.tool import Tool, ToolError

_PATTERN_OPTIONS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000)
_MAX_ERRORS = 5
#: Arguments with more values are refused without a reason, which would take long to find.
_MAX_EXPLAINED_VALUES = 2000
_MAX_ERROR_CHARACTERS = 300


class CompiledTool:
    """A tool and the validator of its arguments.

    Raises `ValueError` for parameters that are not a valid JSON schema, or cannot be serialised.
    """

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        try:
            orjson.dumps(tool.parameters, default=dict)  # an integer of more than 64 bits would fail every run
            # MCP servers send schemas: fetch no reference and limit backtracking of patterns.
            self._validator = jsonschema_rs.validator_for(
                dict(tool.parameters), retriever=_refuse_reference, pattern_options=_PATTERN_OPTIONS
            )
        except (TypeError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(str(error)) from None

    def parse_arguments(self, text: str) -> Mapping[str, Any]:
        """Parse the arguments and validate them, unless that could take long. Raises `ToolError` with the errors."""
        name = self.tool.name
        try:
            arguments = orjson.loads(text) if text.strip() else {}
        except orjson.JSONDecodeError as error:
            raise ToolError(f"The arguments of {name} are not valid JSON: {error}. Write one JSON object.") from None
        if not isinstance(arguments, dict):
            raise ToolError(f"The arguments of {name} must be one JSON object.")
        if self._is_cheap and not self._validator.is_valid(arguments):
            raise ToolError(f"The arguments of {name} are invalid: {self._describe_errors(arguments)}.")
        return arguments

    @cached_property
    def _is_cheap(self) -> bool:
        """False for schemas that only MCP servers send, which check arguments themselves."""
        return is_cheap(steps_of(dict(self.tool.parameters)))

    def _describe_errors(self, arguments: Mapping[str, Any]) -> str:
        # All errors are collected before the first is returned, and one of `anyOf` has those of every branch.
        if _count_values(arguments, _MAX_EXPLAINED_VALUES) > _MAX_EXPLAINED_VALUES:
            return f"they do not match its schema; with at most {_MAX_EXPLAINED_VALUES} values the error would be named"
        errors = islice(self._validator.iter_errors(arguments), _MAX_ERRORS)
        return "; ".join(map(self._error_text, errors))

    def _error_text(self, error: jsonschema_rs.ValidationError) -> str:
        path = ".".join(map(str, error.instance_path))
        text = _truncate(f"{path}: {error.message}" if path else error.message)
        names = self._property_names(error.schema_path) if error.schema_path[-1:] == ["additionalProperties"] else ()
        return f"{text}; allowed: {_truncate(', '.join(names))}" if names else text

    def _property_names(self, schema_path: Sequence[str | int]) -> Sequence[str]:
        """Return the property names of the object schema at the violated rule, if it lists any."""
        schema: Any = self.tool.parameters
        try:
            for step in schema_path[:-1]:
                schema = schema[step]
            return tuple(schema["properties"])
        except (LookupError, TypeError):
            return ()


def _count_values(value: Any, limit: int) -> int:
    """Return the number of values in `value`; stops above `limit`."""
    count, pending = 0, [value]
    while pending and count <= limit:
        one = pending.pop()
        count += 1
        if isinstance(one, dict | list):
            pending.extend(islice(one.values() if isinstance(one, dict) else one, limit))
    return count


def _refuse_reference(uri: str) -> Any:
    raise ValueError(f"the schema refers to {uri}, which is outside the schema")


def _truncate(text: str) -> str:
    return text if len(text) <= _MAX_ERROR_CHARACTERS else f"{text[:_MAX_ERROR_CHARACTERS]}..."
