"""Coverage of the schemas of request bodies by keyword: what accepted values satisfied, and what refused ones broke.

A keyword counts at its place in a schema, and once where several schemas share a component. Structure (`properties`,
`items`, `allOf`, `if`) says nothing by itself and is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from service.api.http.contract import to_json_schema

#: The type that a keyword is about; it says nothing of other values.
_SUBJECTS: Mapping[str, type | tuple[type, ...]] = {
    "maxLength": str,
    "minLength": str,
    "pattern": str,
    "maximum": (int, float),
    "minimum": (int, float),
    "maxItems": list,
    "minItems": list,
    "maxProperties": dict,
    "required": dict,
}


def _types_of(value: Any) -> set[str]:
    if isinstance(value, float):
        return {"integer", "number"} if value.is_integer() else {"number"}
    return _TYPES[type(value)]


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


_TYPES = {
    type(None): {"null"},
    bool: {"boolean"},
    int: {"integer", "number"},
    str: {"string"},
    list: {"array"},
    dict: {"object"},
}
_HOLDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, wanted: not _types_of(value).isdisjoint([wanted] if isinstance(wanted, str) else wanted),
    "enum": lambda value, wanted: any(_is_same(value, one) for one in wanted),
    "const": _is_same,
    "maxLength": lambda value, wanted: len(value) <= wanted,
    "minLength": lambda value, wanted: len(value) >= wanted,
    "pattern": lambda value, wanted: re.search(wanted, value) is not None,
    "maximum": lambda value, wanted: value <= wanted,
    "minimum": lambda value, wanted: value >= wanted,
    "maxItems": lambda value, wanted: len(value) <= wanted,
    "minItems": lambda value, wanted: len(value) >= wanted,
    "maxProperties": lambda value, wanted: len(value) <= wanted,
    "required": lambda value, wanted: value.keys() >= set(wanted),
}
_STRUCTURE = {"$ref", "$defs", "properties", "items", "prefixItems", "allOf", "if", "then", "else"}
_NOTES = {"title", "description", "default", "example", "examples", "deprecated", "format", "discriminator"}


class Place(NamedTuple):
    """A keyword of a request body's schema: the path of its schema, and its name."""

    path: str
    keyword: str


class KeywordCoverage:
    """The keywords of the request bodies of `document`, and which of them were `satisfied` and `broken`.

    `refusable` are those that a value can break: not what the condition of their schema has as well.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._schemas: dict[str, Any] = {}
        self._roots: dict[str, dict[str, Any]] = {}
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if "requestBody" in operation:
                    schema = operation["requestBody"]["content"]["application/json"]["schema"]
                    compiled = to_json_schema(schema, document)
                    self._schemas |= compiled["$defs"]
                    self._roots[f"{method.upper()} {path}"] = {"$ref": compiled["$ref"]}
        places = dict(place for name, schema in self._schemas.items() for place in self._places(schema, name))
        self.declared = set(places)
        self.refusable = {place for place, is_implied in places.items() if not is_implied}
        self.satisfied = set[Place]()
        self.broken = set[Place]()

    def note(self, label: str, body: Any, status: int) -> None:
        """Note the `body` of a request to the operation `label` and the status of its answer."""
        if label not in self._roots or not isinstance(body, (dict, list, str, int, float, bool, type(None))):
            return
        is_accepted = status in (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED)
        if is_accepted or status == HTTPStatus.BAD_REQUEST:
            seen = self.satisfied if is_accepted else self.broken
            seen.update(place for place, holds in self._walk(self._roots[label], body, "") if holds == is_accepted)

    def to_lines(self) -> list[str]:
        """Format both shares, and what is missing from each."""
        lines = []
        for name, wanted, seen in (
            ("accepted", self.declared, self.satisfied),
            ("refused", self.refusable, self.broken),
        ):
            never = ", ".join(f"{path} {word}" for path, word in sorted(wanted - seen))
            lines.append(f"keywords of request bodies {name}: {percentage(len(seen & wanted), len(wanted))}")
            lines.append(f"    never  {never or '-'}")
        return lines

    def _places(self, schema: Any, path: str, given: Mapping[str, Any] | None = None) -> Iterator[tuple[Place, bool]]:
        """Yield each keyword of a schema, and whether `given`, its condition, implies it."""
        if not isinstance(schema, dict):
            return
        for keyword in schema:
            if keyword in _HOLDS or (keyword == "additionalProperties" and schema[keyword] is False):
                yield Place(path, keyword), given is not None and given.get(keyword) == schema[keyword]
            elif keyword not in _STRUCTURE | _NOTES | {"additionalProperties"} and not keyword.startswith("x-"):
                raise ValueError(f"{path}: the keyword {keyword} is not counted")
        for inner, step in _parts(schema):
            yield from self._places(inner, f"{path}{step}", schema.get("if") if step == "/then" else None)

    def _walk(self, schema: Any, value: Any, path: str) -> Iterator[tuple[Place, bool]]:
        """Yield each keyword that is about `value` or a part of it, and whether it holds."""
        if not isinstance(schema, dict):
            return
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            yield from self._walk(self._schemas[name], value, name)
            return
        for keyword, wanted in schema.items():
            if keyword in _HOLDS and isinstance(value, _SUBJECTS.get(keyword, object)):
                yield Place(path, keyword), _HOLDS[keyword](value, wanted)
        for index, inner in enumerate(schema.get("allOf", ())):
            yield from self._walk(inner, value, f"{path}/allOf/{index}")
        if "if" in schema:
            branch = "then" if self._holds(schema["if"], value) else "else"
            yield from self._walk(schema.get(branch), value, f"{path}/{branch}")
        if isinstance(value, list):
            yield from self._walk_items(schema, value, path)
        if isinstance(value, dict):
            yield from self._walk_members(schema, value, path)

    def _walk_items(self, schema: Mapping[str, Any], value: list[Any], path: str) -> Iterator[tuple[Place, bool]]:
        first = schema.get("prefixItems", ())
        for index, (inner, item) in enumerate(zip(first, value, strict=False)):
            yield from self._walk(inner, item, f"{path}/prefixItems/{index}")
        for item in value[len(first) :]:
            yield from self._walk(schema.get("items"), item, f"{path}/items")

    def _walk_members(
        self, schema: Mapping[str, Any], value: Mapping[str, Any], path: str
    ) -> Iterator[tuple[Place, bool]]:
        properties = schema.get("properties", {})
        for name, inner in properties.items():
            if name in value:
                yield from self._walk(inner, value[name], f"{path}/{name}")
        further = schema.get("additionalProperties")
        for name in value.keys() - properties.keys():
            yield from self._walk(further, value[name], f"{path}/*")
        if further is False:
            yield Place(path, "additionalProperties"), value.keys() <= properties.keys()

    def _holds(self, schema: Any, value: Any) -> bool:
        return schema is not False and all(holds for _, holds in self._walk(schema, value, ""))


def percentage(part: int, whole: int) -> str:
    """Format a share, never rounded up to all."""
    return f"{part}/{whole} ({int(1000 * part / whole) / 10 if whole else 100.0} %)"


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """Yield the schemas within a schema, with the steps to them; a condition itself demands nothing."""
    for name, inner in schema.get("properties", {}).items():
        yield inner, f"/{name}"
    for keyword, step in (("items", "/items"), ("additionalProperties", "/*"), ("then", "/then"), ("else", "/else")):
        yield schema.get(keyword), step
    for keyword in ("allOf", "prefixItems"):
        for index, inner in enumerate(schema.get(keyword, ())):
            yield inner, f"/{keyword}/{index}"
