"""The keywords of the schemas of requests: where each stands, what leads to it, and which of them a value breaks.

A keyword counts at its place in a schema, and once where several schemas share a component. Structure (`properties`,
`items`, `allOf`, `if`) says nothing by itself and is not counted; nor is what only describes (`format`, `default`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jsonschema_rs
import orjson

Schema = Mapping[str, Any]
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
_STRUCTURE = {"$ref", "$defs", "properties", "items", "prefixItems", "allOf", "if", "then", "additionalProperties"}


def _types_of(value: Any) -> set[str]:
    if isinstance(value, float):
        return {"integer", "number"} if value.is_integer() else {"number"}
    return _TYPES[type(value)]


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def types_in(wanted: str | list[str]) -> list[str]:
    """The types of a `type`, which may be one or a list."""
    return [wanted] if isinstance(wanted, str) else wanted


_TYPES = {
    type(None): {"null"},
    bool: {"boolean"},
    int: {"integer", "number"},
    str: {"string"},
    list: {"array"},
    dict: {"object"},
}
_HOLDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, wanted: not _types_of(value).isdisjoint(types_in(wanted)),
    "enum": lambda value, wanted: any(_is_same(value, one) for one in wanted),
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


class Place(NamedTuple):
    """A keyword of a request's schema: the path of its schema, and its name."""

    path: str
    keyword: str


class Step(NamedTuple):
    """A step from a schema to one within it: `kind` is the keyword that holds it, `name` the entry there."""

    kind: str
    name: str | int = 0


class Route(NamedTuple):
    """A way from the schema of a request to one within it.

    `given` are the conditions that hold for the value there, because the way leads through them. Nothing can be
    reached by a way that `is_closed`: it leads into a list that must be empty.
    """

    schema: Schema
    path: str
    steps: tuple[Step, ...] = ()
    given: tuple[Schema, ...] = ()
    is_closed: bool = False


class Schemas:
    """A schema and what it refers to; `root` is a JSON Schema as `to_json_schema` makes it, at `path`."""

    def __init__(self, root: Schema, path: str) -> None:
        self.root = Route({name: part for name, part in root.items() if name != "$defs"}, path)
        self._definitions: Mapping[str, Schema] = root["$defs"]
        self._validators: dict[bytes, Any] = {}

    def resolve(self, schema: Schema) -> Schema:
        """The component that a reference names, or the schema itself."""
        return self._definitions[_component(schema)] if "$ref" in schema else schema

    def is_valid(self, schema: Schema, value: Any) -> bool:
        """Return True if `value` is valid."""
        key = orjson.dumps(schema)
        if key not in self._validators:
            self._validators[key] = jsonschema_rs.Draft202012Validator({**schema, "$defs": self._definitions})
        return bool(self._validators[key].is_valid(value))

    def routes(self) -> Iterator[Route]:
        """Yield the shortest way to each schema under each set of conditions."""
        found = [self.root]
        seen = set[tuple[str, bytes]]()
        for route in found:  # which grows
            key = (route.path, orjson.dumps(route.given))
            if key not in seen:
                seen.add(key)
                yield route
                found += self._steps_from(route)

    def inspect(self, value: Any) -> tuple[set[Place], set[Place]]:
        """Return the keywords that are about `value` or a part of it, and those of them that it breaks."""
        found = set(self._walk(self.root.schema, value, self.root.path))
        return {place for place, _ in found}, {place for place, holds in found if not holds}

    def _steps_from(self, route: Route) -> Iterator[Route]:
        schema, path, steps, given, is_closed = route
        if "$ref" in schema:
            yield Route(self.resolve(schema), _component(schema), (*steps, Step("$ref")), given, is_closed)
        if "then" in schema:
            holds = (*given, schema["if"])
            yield Route(schema["then"], f"{path}/then", (*steps, Step("then")), holds, is_closed)
        for index, inner in enumerate(schema.get("allOf", ())):
            yield Route(inner, f"{path}/allOf/{index}", (*steps, Step("allOf", index)), given, is_closed)
        for name, inner in schema.get("properties", {}).items():
            within = tuple(_at_property(one, name) for one in given)
            yield Route(inner, f"{path}/{name}", (*steps, Step("properties", name)), within, is_closed)
        if isinstance(further := schema.get("additionalProperties"), dict):
            yield Route(further, f"{path}/*", (*steps, Step("properties", "key")), (), is_closed)
        for index, inner in enumerate(schema.get("prefixItems", ())):
            yield Route(inner, f"{path}/prefixItems/{index}", (*steps, Step("prefixItems", index)), (), is_closed)
        if "items" in schema:
            has_none = schema.get("maxItems") == 0 or is_empty(route)
            yield Route(schema["items"], f"{path}/items", (*steps, Step("items")), (), is_closed or has_none)

    def _walk(self, schema: Any, value: Any, path: str) -> Iterator[tuple[Place, bool]]:
        """Yield each keyword that is about `value` or a part of it, and whether it holds."""
        if "$ref" in schema:
            yield from self._walk(self.resolve(schema), value, _component(schema))
            return
        for keyword, wanted in schema.items():
            if keyword in _HOLDS and isinstance(value, _SUBJECTS.get(keyword, object)):
                yield Place(path, keyword), _HOLDS[keyword](value, wanted)
        for index, inner in enumerate(schema.get("allOf", ())):
            yield from self._walk(inner, value, f"{path}/allOf/{index}")
        if "if" in schema and self.is_valid(schema["if"], value):
            yield from self._walk(schema["then"], value, f"{path}/then")
        if isinstance(value, list):
            yield from self._walk_items(schema, value, path)
        if isinstance(value, dict):
            yield from self._walk_members(schema, value, path)

    def _walk_items(self, schema: Schema, value: list[Any], path: str) -> Iterator[tuple[Place, bool]]:
        first = schema.get("prefixItems", ())
        for index, (inner, item) in enumerate(zip(first, value, strict=False)):
            yield from self._walk(inner, item, f"{path}/prefixItems/{index}")
        for item in value[len(first) :]:
            yield from self._walk(schema.get("items", {}), item, f"{path}/items")

    def _walk_members(self, schema: Schema, value: Schema, path: str) -> Iterator[tuple[Place, bool]]:
        properties = schema.get("properties", {})
        further = schema.get("additionalProperties", True)
        for name, member in value.items():
            if name in properties:
                yield from self._walk(properties[name], member, f"{path}/{name}")
            elif isinstance(further, dict):
                yield from self._walk(further, member, f"{path}/*")


def places_of(route: Route) -> Iterator[Place]:
    """Yield the keywords of the schema to which a route leads; raises ValueError for one that is not known."""
    for keyword, wanted in route.schema.items():
        if keyword in _HOLDS and wanted != []:
            yield Place(route.path, keyword)
        elif keyword not in _STRUCTURE | _HOLDS.keys() and not keyword.startswith("x-"):
            raise ValueError(f"{route.path}: the keyword {keyword} is not counted")
    if route.schema.get("additionalProperties") is False:
        raise ValueError(f"{route.path}: additionalProperties is not counted")


def is_empty(route: Route) -> bool:
    """Return True if only empty lists take this way."""
    return any(condition.get("maxItems") == 0 for condition in route.given)


def is_implied(route: Route, keyword: str) -> bool:
    """Return True if the conditions of a route demand what `keyword` demands, so that no value there breaks it."""
    return any(_implies(condition, keyword, route.schema[keyword]) for condition in route.given)


def _implies(condition: Schema, keyword: str, wanted: Any) -> bool:
    if "anyOf" in condition and all(_implies(one, keyword, wanted) for one in condition["anyOf"]):
        return True
    match keyword:
        case "type" if "type" in condition:
            return set(types_in(condition["type"])) <= set(types_in(wanted))
        case "type" | "enum" if "const" in condition:
            return _HOLDS[keyword](condition["const"], wanted)
        case "enum" if condition.get("type") == "null":
            return None in wanted
        case "required":
            return set(wanted) <= set(condition.get("required", ()))
    return keyword in condition and bool(condition[keyword] == wanted)


def _at_property(condition: Schema, name: str) -> Schema:
    if "anyOf" in condition:
        return {"anyOf": [_at_property(one, name) for one in condition["anyOf"]]}
    inner: Schema = condition.get("properties", {}).get(name, {})
    return inner


def _component(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]
