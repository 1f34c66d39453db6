"""Describe the problems of a configuration to its author.

Each problem gives the whole path of its key, the fault and the remedy. Values may be secrets: none is repeated except
numbers and the words of a choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from service.config.key_paths import KeyPath, format_path

_LONGEST_SHOWN_WORD = 40


class Section(BaseModel):
    """A part of the configuration: camelCase keys in the file, snake_case attributes here, frozen."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )


class UnknownKey(NamedTuple):
    """A key that its section does not have, and the keys that the section has."""

    path: KeyPath
    value: object
    known: tuple[str, ...]


def find_unknown_keys(annotation: Any, value: object, path: KeyPath = ()) -> Iterator[UnknownKey]:
    """Yield every key of `value` that the type `annotation` does not have, in the order of the file."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        if isinstance(value, Mapping):
            yield from _unknown_keys_of_section(annotation, value, path)
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from find_unknown_keys(argument, value, path)
    elif origin is Annotated:
        yield from find_unknown_keys(arguments[0], value, path)
    elif origin is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            yield from find_unknown_keys(arguments[0], item, (*path, index))
    elif origin is dict and isinstance(value, Mapping):
        for key, item in value.items():
            yield from find_unknown_keys(arguments[1], item, (*path, str(key)))


def _unknown_keys_of_section(section: type[Section], value: Mapping[Any, Any], path: KeyPath) -> Iterator[UnknownKey]:
    known = {field.alias or name: field.annotation for name, field in section.model_fields.items()}
    for key, item in value.items():
        if key in known:
            yield from find_unknown_keys(known[key], item, (*path, key))
        else:
            yield UnknownKey((*path, str(key)), item, tuple(known))


def describe_failures(error: ValidationError) -> tuple[str, ...]:
    """Return one problem for each of pydantic's errors."""
    return tuple(
        f"{format_path(_path_of(details))}: {_describe(details)}" for details in error.errors(include_url=False)
    )


def _path_of(details: ErrorDetails) -> KeyPath:
    *outer, last = details["loc"] or ("",)
    if last == "[key]":  # pydantic's mark for an invalid key
        return tuple(outer)
    if details["type"] == "value_error" and details["input"] is None:
        # A required value is missing: only here pydantic names the attribute, not the key.
        return (*outer, to_camel(str(last)))
    return (*outer, last)


#: The expected kind of value, by pydantic's type of error.
_EXPECTED_KINDS = {
    "string_type": "a string in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list in [brackets]",
    "dict_type": "an object in {braces}",
    "model_type": "an object in {braces}",
}

_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}

_PLAIN_FAULTS = {"missing": "is required", "finite_number": "must be a finite number"}


def _describe(details: ErrorDetails) -> str:
    fault, value, context = details["type"], details["input"], details.get("ctx", {})
    if fault == "string_type" and isinstance(value, dict) and "source" in value:
        return 'is a reference to a secret outside the environment, which is not supported; write it as "${NAME}"'
    if fault in _EXPECTED_KINDS:
        return f"must be {_EXPECTED_KINDS[fault]}, not {_kind_of(value)}"
    if fault in _BOUNDS:
        name, words = _BOUNDS[fault]
        return f"must be {words} {context[name]:g}, not {value}"
    if fault == "literal_error":
        return f"must be {str(context['expected']).replace(chr(39), chr(34))}, not {_choice(value)}"
    if fault == "value_error":
        return str(context["error"])
    return _PLAIN_FAULTS.get(fault, "is not a value that can be used here")


def _choice(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) and len(value) <= _LONGEST_SHOWN_WORD else _kind_of(value)


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int):
        return "a number"
    if isinstance(value, float):
        return "a number with a fraction"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"
