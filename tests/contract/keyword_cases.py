"""Derive a request for each keyword of the contract: a value that reaches it, and one that breaks it and nothing else.

Values are the simplest that their schemas allow. A keyword for which there is no such value is left out by a rule,
which says why.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import hypothesis
from hypothesis import strategies

from contract.keywords import Place, Route, Schema, Schemas, Step, is_empty, is_implied, places_of, types_in
from contract.steering import PICTURE
from service.api.http.contract import to_json_schema

IMPLIED = "refused: every way to the keyword demands the same"
EMPTY = "accepted and refused: inside a list that must be empty"
TEXT = "refused: a parameter is text in any case"
SEGMENT = "refused: a path with an empty segment is another path"

BODY = "body"
#: What a mutation puts in place of a value, besides what follows from the keyword.
_VALUES: Sequence[Any] = (None, True, 7, 0.5, "other", [], {}, "", "\u0001", " ", "é", "!!", "-")
_ITEM = "msg_00000000-0000-4000-8000-000000000000_i0"
#: Texts that patterns ask for, if they have one.
_TEXTS = ("text", PICTURE, "https://hooks.example/one", "2026-01-31", "1.0a", "1", "tools", "A" * 32, _ITEM)
_LONGEST_TEXT = 2000
_MOST_BRANCHES = 8


class Subject(NamedTuple):
    """A part of the requests of an operation: its `body`, or a parameter with a `name` in `location`."""

    label: str
    location: str
    name: str
    schemas: Schemas


class KeywordCase(NamedTuple):
    """A value for `subject`, which reaches `place`, or breaks it and nothing else."""

    subject: Subject
    place: Place
    value: Any
    is_right: bool


class Keywords(NamedTuple):
    """The keywords of the requests of a contract: the cases for them, and those that rules leave out.

    `missing` are those that have neither, each with the side that has no case.
    """

    cases: list[KeywordCase]
    excluded: dict[str, set[Place]]
    missing: set[tuple[Place, bool]]


def derive_cases(document: Mapping[str, Any]) -> Keywords:
    """Derive two cases for every keyword in the requests of `document`."""
    ways: dict[Place, list[tuple[Subject, Route]]] = {}
    for subject in list_subjects(document):
        for route in subject.schemas.routes():
            for place in places_of(route):
                ways.setdefault(place, []).append((subject, route))
    found = Keywords([], {}, set())
    for place, these in ways.items():
        for is_right in (True, False):
            rule = _rule_of(place, these, is_right=is_right)
            if rule is not None:
                found.excluded.setdefault(rule, set()).add(place)
                continue
            case = _case_for(place, these, is_right=is_right)
            if case is None:
                found.missing.add((place, is_right))
            else:
                found.cases.append(case)
    return found


def list_subjects(document: Mapping[str, Any]) -> Iterator[Subject]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            label = f"{method.upper()} {path}"
            for listed in operation.get("parameters", ()):
                reference = listed.get("$ref", "").rpartition("/")[2]
                one = document["components"]["parameters"][reference] if reference else listed
                schemas = Schemas(to_json_schema(one["schema"], document), f"{label} {one['in']} {one['name']}")
                yield Subject(label, one["in"], one["name"], schemas)
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                yield Subject(label, BODY, "", Schemas(to_json_schema(schema, document), f"{label} {BODY}"))


def _rule_of(place: Place, ways: Sequence[tuple[Subject, Route]], *, is_right: bool) -> str | None:
    """Return the rule that leaves out a keyword in accepted or in refused values, if there is one."""
    is_least = place.keyword == "minItems" and not is_right
    if all(route.is_closed or (is_empty(route) and not is_least) for _, route in ways):
        return EMPTY
    if is_right:
        return None
    if all(is_implied(route, place.keyword) for _, route in ways):
        return IMPLIED
    places = {subject.location for subject, _ in ways}
    if place.keyword == "type" and BODY not in places and all(route.schema["type"] == "string" for _, route in ways):
        return TEXT
    return SEGMENT if place.keyword == "minLength" and places == {"path"} else None


def _case_for(place: Place, ways: Sequence[tuple[Subject, Route]], *, is_right: bool) -> KeywordCase | None:
    """Return a case for a keyword; one that breaks others of the same schema, too, only if there is no better one."""
    second = None
    for subject, route in ways:
        if route.is_closed or (not is_right and is_implied(route, place.keyword)):
            continue
        for position in (0, 1):
            values = Values(subject.schemas, position)
            body, pointer = values.reach(route)
            tried = [body] if is_right else values.mutations(body, pointer, route, place.keyword)
            for value in tried:
                if subject.location != BODY and not isinstance(value, str | int | float):
                    continue
                reached, broken = subject.schemas.inspect(value)
                if broken == (set() if is_right else {place}) and place in reached:
                    return KeywordCase(subject, place, value, is_right)
                if place in broken and not is_right and {one.path for one in broken} == {place.path}:
                    second = second or KeywordCase(subject, place, value, is_right)
    return second


class Values:
    """Build values for the schemas of one subject; what is sought is the element at `position` of each list."""

    def __init__(self, schemas: Schemas, position: int = 0) -> None:
        self._schemas = schemas
        self._position = position

    def simplest(self) -> Any:
        """Return the simplest right value."""
        return self._simple([self._schemas.root.schema])

    def reach(self, route: Route) -> tuple[Any, list[str | int]]:
        """Return a right value that has a part where `route` leads, and the way to that part."""
        pointer: list[str | int] = []
        value = self._reach(self._schemas.root.schema, [self._schemas.root.schema], list(route.steps), pointer)
        return value, pointer

    def mutations(self, value: Any, pointer: Sequence[str | int], route: Route, keyword: str) -> Iterator[Any]:
        """Yield copies of `value` in which the part at `pointer` may break `keyword`."""
        part = value
        for step in pointer:
            part = part[step]
        for other in _wrong_values(part, keyword, route.schema[keyword], self._simple([_element(route.schema)])):
            if not pointer:
                yield other
                continue
            changed = copy.deepcopy(value)
            holder = changed
            for step in pointer[:-1]:
                holder = holder[step]
            holder[pointer[-1]] = other
            yield changed

    def _reach(self, schema: Schema, constraints: list[Schema], steps: list[Step], pointer: list[str | int]) -> Any:
        while steps and steps[0].kind in ("$ref", "then", "allOf"):
            step = steps.pop(0)
            if step.kind == "then":
                constraints.append(schema["if"])
                schema = schema["then"]
            else:
                schema = self._schemas.resolve(schema) if step.kind == "$ref" else schema["allOf"][step.name]
        whole = self._simple(constraints)
        if not steps:
            return whole
        step = steps.pop(0)
        active = self._active(constraints, whole)
        if step.kind == "properties":
            inner = schema.get("properties", {}).get(step.name, schema.get("additionalProperties"))
            others = [one["properties"][step.name] for one in active if step.name in one.get("properties", {})]
            pointer.append(step.name)
            return {**(whole or {}), step.name: self._reach(inner, [inner, *others], steps, pointer)}
        return self._reach_element(schema, step, active, steps, pointer)

    def _reach_element(
        self, schema: Schema, step: Step, active: list[Schema], steps: list[Step], pointer: list[str | int]
    ) -> list[Any]:
        first = [one["prefixItems"] for one in active if "prefixItems" in one]
        if step.kind == "prefixItems":
            index = int(step.name)
            inner = schema["prefixItems"][index]
            others = [these[index] for these in first if index < len(these)]
            others += [one["items"] for one in active if "items" in one]
        else:
            index = self._position
            inner = schema["items"]
            others = [these[index] for these in first if index < len(these)]
        pointer.append(index)
        before = [self._simple([inner, *(these[0] for these in first)]) for _ in range(index)]
        return [*before, self._reach(inner, [inner, *others], steps, pointer)]

    def _active(self, constraints: Sequence[Schema], value: Any, *, is_known: bool = True) -> list[Schema]:
        """The schemas that apply to `value`, references resolved; without those under conditions if it is not known."""
        found: list[Schema] = []
        pending = list(constraints)
        while pending:
            schema = self._schemas.resolve(pending.pop(0))
            found.append(schema)
            pending += schema.get("allOf", ())
            if "anyOf" in schema:
                right = [one for one in schema["anyOf"] if self._schemas.is_valid(one, value)]
                pending.append((right or schema["anyOf"])[0])
            if is_known and "if" in schema and self._schemas.is_valid(schema["if"], value):
                pending.append(schema["then"])
        return found

    def _simple(self, constraints: Sequence[Schema]) -> Any:
        """Return the simplest value that satisfies `constraints`."""
        value = self._candidate(self._active(constraints, None, is_known=False))
        for _ in range(_MOST_BRANCHES):
            changed = self._candidate(self._active(constraints, value))
            if changed == value:
                break
            value = changed
        return value

    def _candidate(self, schemas: Sequence[Schema]) -> Any:
        kinds = _types_of(schemas)
        values = [one.get("enum", [one.get("const")]) for one in schemas if "enum" in one or "const" in one]
        for value in values[0] if values else ():
            if all(value in other for other in values):
                return value
        kind = next((kind for kind in kinds if kind != "null"), "null")
        match kind:
            case "object":
                return self._object(schemas)
            case "array":
                least = max((one.get("minItems", 0) for one in schemas), default=0)
                inner = [one["items"] for one in schemas if "items" in one]
                inner += [one["prefixItems"][0] for one in schemas if "prefixItems" in one]
                return [self._simple(inner) for _ in range(least)]
            case "string":
                return _text(tuple(one["pattern"] for one in schemas if "pattern" in one), _lengths(schemas))
            case "integer" | "number":
                least = max((one.get("minimum", 1) for one in schemas), default=1)
                most = min((one.get("maximum", least) for one in schemas), default=least)
                return min(least, most)
        return {"boolean": False, "null": None}[kind]

    def _object(self, schemas: Sequence[Schema]) -> dict[str, Any]:
        names = dict.fromkeys(name for one in schemas for name in one.get("required", ()))
        return {
            name: self._simple([one["properties"][name] for one in schemas if name in one.get("properties", {})])
            for name in names
        }


def _types_of(schemas: Sequence[Schema]) -> list[str]:
    kinds = [types_in(one["type"]) for one in schemas if "type" in one]
    return [kind for kind in (kinds[0] if kinds else ["string"]) if all(kind in other for other in kinds)]


def _lengths(schemas: Sequence[Schema]) -> tuple[int, int]:
    return (
        max((one.get("minLength", 0) for one in schemas), default=0),
        min((one.get("maxLength", _LONGEST_TEXT) for one in schemas), default=_LONGEST_TEXT),
    )


@cache
def _text(patterns: Sequence[str], lengths: tuple[int, int]) -> str:
    """Return a text of one of these lengths that has each of `patterns`."""
    least, most = lengths
    if not patterns:
        return "text"[:most].ljust(least, "x")

    def is_right(text: str) -> bool:
        return least <= len(text) <= most and all(re.search(pattern, text) for pattern in patterns)

    usual = next((text for text in _TEXTS if is_right(text)), None)
    if usual is not None:
        return usual
    settings = hypothesis.settings(derandomize=True, database=None, max_examples=2000)
    return hypothesis.find(strategies.from_regex(patterns[0]), is_right, settings=settings)


def _element(schema: Schema) -> Schema:
    further = schema.get("additionalProperties")
    inner: Schema = further if isinstance(further, dict) else schema.get("items", {"type": "string"})
    return inner


def _wrong_values(part: Any, keyword: str, limit: Any, element: Any) -> Iterator[Any]:
    """Yield values in place of `part` that may break `keyword`; lists and objects are made of `element`."""
    match keyword:
        case "maxLength":
            yield str(part).ljust(limit + 1, "A")
        case "maximum":
            yield limit + 1
        case "minimum":
            yield limit - 1
        case "maxItems":
            yield [*part, *([element] * (limit + 1 - len(part)))]
        case "maxProperties":
            yield {f"key{number}": element for number in range(limit + 1)}
        case "required":
            for name in limit:
                yield {kept: value for kept, value in part.items() if kept != name}
    yield from _VALUES
