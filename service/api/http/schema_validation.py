"""Checks values against the contract's schemas, compiled once, and says what is wrong in words for people.

A message names the place, the fault and what would be right; it never repeats more of the value than a short scalar.
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
_SHOWN_CHARACTERS = 64
_FAULTS_READ = 20
_ELEMENTS_READ = 64
_LEVELS_READ = 8


class CompiledSchema:
    """One schema of the contract, ready to check values quickly."""

    def __init__(self, schema: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        self._schema = to_json_schema(schema, document)
        self._validator = jsonschema_rs.Draft202012Validator(self._schema)

    def check(self, value: Any, name: str = "", *, subject: str = "The request body") -> None:
        """Return if `value` is right; else raise `GatewayError` (400) for its first fault.

        What is not supported comes before what is wrong: it explains why something else is missing.
        `name` is what the value as a whole is called (a header's name); in a body the place inside it is named, and
        `subject` stands for all of it.
        """
        try:
            self._validator.validate(value)  # stops at the first fault
        except jsonschema_rs.ValidationError as fault:
            # `iter_errors` collects every fault before it yields one: 16 KiB of memory for each.
            more = islice(self._validator.iter_errors(_beginning(value)), _FAULTS_READ)
            raise _foremost([self._to_error(one, name, subject) for one in (fault, *more)]) from None

    def is_valid(self, value: Any) -> bool:
        """Whether `value` is right."""
        return self._validator.is_valid(value)

    def _to_error(self, fault: jsonschema_rs.ValidationError, name: str, whole: str) -> GatewayError:
        place = name + _to_place(fault.instance_path)
        nodes = _nodes_along(self._schema, fault.schema_path)
        for node in reversed(nodes):
            if "x-unsupported" in node:
                return GatewayError("unsupported_parameter", node["x-unsupported"], param=place)
            reasons = node.get("x-unsupported-values", {})
            if fault.kind.name == "enum" and isinstance(fault.instance, str) and fault.instance in reasons:
                text = f"`{place}` {_shown(fault.instance)} is not supported. {reasons[fault.instance]}"
                return GatewayError("unsupported_parameter", text, param=place)
        kind: Any = fault.kind  # each kind has attributes of its own
        if kind.name == "required":
            missing = f"{place}.{kind.property}" if place else kind.property
            return GatewayError("missing_required_parameter", f"`{missing}` is missing.", param=missing)
        code = "invalid_type" if kind.name == "type" else "invalid_value"
        subject = f"`{place}`" if place else whole
        return GatewayError(code, f"{subject} {_describe(fault, nodes[-1])}", param=place or None)


def _foremost(errors: Sequence[GatewayError]) -> GatewayError:
    return next((error for error in errors if error.code == "unsupported_parameter"), errors[0])


def _beginning(value: Any, levels: int = _LEVELS_READ) -> Any:
    """`value` with every array and object cut to its first elements: what is left keeps its place."""
    if isinstance(value, dict):
        kept = value.items() if levels else ()
        return {key: _beginning(item, levels - 1) for key, item in islice(kept, _ELEMENTS_READ)}
    if isinstance(value, list):
        return [_beginning(item, levels - 1) for item in value[:_ELEMENTS_READ]] if levels else []
    return value


def _to_place(path: Sequence[str | int]) -> str:
    place = ""
    for step in path:
        if isinstance(step, int):
            place += f"[{step}]"
        else:
            place += f".{step}" if place else step
    return place


def _nodes_along(schema: Mapping[str, Any], path: Sequence[str | int]) -> list[Mapping[str, Any]]:
    nodes: list[Mapping[str, Any]] = [schema]
    node: Any = schema
    for step in path:
        node = node[step]
        if isinstance(node, Mapping):
            nodes.append(node)
    return nodes


def _shown(value: Any) -> str:
    if isinstance(value, str):
        short = value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 3] + "..."
        return f'"{short}"'
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return "this" if _is_container(value) else str(value)


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def _kind_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return _ARTICLES[names.get(type(value), "null")]


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _describe(fault: jsonschema_rs.ValidationError, node: Mapping[str, Any]) -> str:
    kind: Any = fault.kind
    match kind.name:
        case "type":
            return f"must be {_joined([_ARTICLES[one] for one in kind.types])}, not {_kind_of(fault.instance)}."
        case "enum":
            values = [_shown(value) for value in kind.options]
            return f"must be {_joined(values)}, not {_shown(fault.instance)}."
        case "pattern":
            return f"must be {node.get('x-expected', 'of another form')}."
        case "minimum" | "maximum":
            side = "at least" if kind.name == "minimum" else "at most"
            return f"must be {side} {kind.limit}, not {_shown(fault.instance)}."
        case "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties":
            unit = {"L": "characters", "I": "elements", "P": "keys"}[kind.name[3]]
            side = "at least" if kind.name.startswith("min") else "at most"
            return f"must have {side} {kind.limit} {unit if kind.limit != 1 else unit.rstrip('s')}."
        case _:
            return "is not what the contract asks for."
