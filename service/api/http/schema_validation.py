"""Validate values against the contract's schemas, compiled once, with readable error messages.

A message names the location, the error and the expected value; it quotes at most a short scalar of the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import jsonschema_rs

from service.api.http.contract import to_json_schema
from service.core.errors import GatewayError

_ARTICLES = {
    "array": "an array",
    "boolean": "a boolean",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}
_MAX_QUOTED_CHARACTERS = 64
_MAX_ERRORS = 20
_MAX_ELEMENTS = 64
_MAX_LEVELS = 8
_MAX_CHARACTERS = 64 * 1024


class CompiledSchema:
    """A compiled schema of the contract."""

    def __init__(self, schema: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        self._schema = to_json_schema(schema, document)
        self._validator = jsonschema_rs.Draft202012Validator(self._schema)
        reference = self._schema.get("$ref", "").rpartition("/")[2]
        root = self._schema["$defs"][reference] if reference else self._schema
        self._fields: Mapping[str, Any] = root.get("properties", {})
        self._sizes = [
            (name, field[key], unit)
            for name, field in self._fields.items()
            for key, unit in (("maxItems", "elements"), ("maxProperties", "keys"))
            if key in field and "x-unsupported" not in field
        ]
        self._is_open = root.get("additionalProperties", True) is True

    def check(self, value: Any, name: str = "", *, subject: str = "The request body") -> None:
        """Return if `value` is valid; else raise `GatewayError` (400) for its first error.

        Unsupported fields are reported before other errors, because they can cause them. `name` is the parameter's name
        (a header's, for instance); in a body, errors carry their path inside it, and `subject` denotes the whole body.
        """
        if isinstance(value, dict) and self._fields:
            value = self._check_sizes(value)
        if self._validator.is_valid(value):
            return
        # `iter_errors` collects every error, with copies of the values around it, before it yields one: all errors are
        # looked for in a small part of the value, and only one in the whole.
        found = islice(self._validator.iter_errors(_truncate(value)), _MAX_ERRORS)
        if errors := [self._to_error(one, name, subject) for one in found]:
            raise _most_relevant(errors)
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            raise self._to_error(error, name, subject) from None

    def is_valid(self, value: Any) -> bool:
        """Return True if `value` is valid."""
        return self._validator.is_valid(value)

    def _check_sizes(self, value: dict[str, Any]) -> dict[str, Any]:
        """Check the sizes of fields, and leave out unlisted keys if there are many.

        An error of the validator copies what it is about, which takes long if that is large.
        """
        for name, limit, unit in self._sizes:
            field = value.get(name)
            if isinstance(field, dict | list) and len(field) > limit:
                raise GatewayError("invalid_value", f"`{name}` must have at most {limit} {unit}.", param=name)
        if len(value) <= _MAX_ELEMENTS or not self._is_open:
            return value
        return {name: value[name] for name in self._fields if name in value}

    def _to_error(self, error: jsonschema_rs.ValidationError, name: str, whole: str) -> GatewayError:
        param = name + _format_path(error.instance_path)
        nodes = _nodes_along(self._schema, error.schema_path)
        for node in reversed(nodes):
            if "x-unsupported" in node:
                return GatewayError("unsupported_parameter", node["x-unsupported"], param=param)
            reasons = node.get("x-unsupported-values", {})
            if error.kind.name == "enum" and isinstance(error.instance, str) and error.instance in reasons:
                text = f"`{param}` {_quote(error.instance)} is not supported. {reasons[error.instance]}"
                return GatewayError("unsupported_parameter", text, param=param)
        kind: Any = error.kind  # each kind has its own attributes
        if kind.name == "required":
            missing = f"{param}.{kind.property}" if param else kind.property
            return GatewayError("missing_required_parameter", f"`{missing}` is missing.", param=missing)
        code = "invalid_type" if kind.name == "type" else "invalid_value"
        subject = f"`{param}`" if param else whole
        return GatewayError(code, f"{subject} {_describe(error, nodes[-1])}", param=param or None)


def _most_relevant(errors: Sequence[GatewayError]) -> GatewayError:
    return next((error for error in errors if error.code == "unsupported_parameter"), errors[0])


def _truncate(value: Any, levels: int = _MAX_LEVELS) -> Any:
    """Cut the arrays and objects of `value` to their first elements, which keep their positions, and long strings."""
    if isinstance(value, dict):
        kept = value.items() if levels else ()
        return {key: _truncate(item, levels - 1) for key, item in islice(kept, _MAX_ELEMENTS)}
    if isinstance(value, list):
        return [_truncate(item, levels - 1) for item in value[:_MAX_ELEMENTS]] if levels else []
    return value[:_MAX_CHARACTERS] if isinstance(value, str) else value


def _format_path(path: Sequence[str | int]) -> str:
    formatted = ""
    for step in path:
        if isinstance(step, int):
            formatted += f"[{step}]"
        else:
            formatted += f".{step}" if formatted else step
    return formatted


def _nodes_along(schema: Mapping[str, Any], path: Sequence[str | int]) -> list[Mapping[str, Any]]:
    nodes: list[Mapping[str, Any]] = [schema]
    node: Any = schema
    for step in path:
        node = node[step]
        if isinstance(node, Mapping):
            nodes.append(node)
    return nodes


def _quote(value: Any) -> str:
    if isinstance(value, str):
        short = value if len(value) <= _MAX_QUOTED_CHARACTERS else value[: _MAX_QUOTED_CHARACTERS - 3] + "..."
        return f'"{short}"'
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return "this" if _is_container(value) else str(value)


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def _kind_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return _ARTICLES[names.get(type(value), "null")]


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


def _describe(error: jsonschema_rs.ValidationError, node: Mapping[str, Any]) -> str:
    kind: Any = error.kind
    match kind.name:
        case "type":
            return f"must be {_join([_ARTICLES[one] for one in kind.types])}, not {_kind_of(error.instance)}."
        case "enum":
            values = [_quote(value) for value in kind.options]
            return f"must be {_join(values)}, not {_quote(error.instance)}."
        case "pattern":
            return f"must be {node.get('x-expected', 'in another form')}."
        case "minimum" | "maximum":
            side = "at least" if kind.name == "minimum" else "at most"
            return f"must be {side} {kind.limit}, not {_quote(error.instance)}."
        case "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties":
            unit = {"L": "characters", "I": "elements", "P": "keys"}[kind.name[3]]
            side = "at least" if kind.name.startswith("min") else "at most"
            return f"must have {side} {kind.limit} {unit if kind.limit != 1 else unit.rstrip('s')}."
        case _:
            return "does not match the contract."
