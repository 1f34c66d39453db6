"""Tool schemas in the forms that hosts accept."""

from __future__ import annotations

from typing import Any

import pytest

from service.models.tool_schemas import (
    dispensable_keywords,
    flatten,
    inline_references,
    with_properties,
    without_keywords,
)

CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PLACE: dict[str, Any] = {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]}
BOTH = {"city": {"type": "string"}, "lat": {"type": "number"}}


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"type": "object", "properties": None}])
def test_schema_without_properties_gets_empty_ones(schema: dict[str, Any]) -> None:
    assert with_properties(schema) == flatten(schema) == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({**CITY, "required": None, "description": None, "$defs": None}, {**CITY, "required": ...}),
        (
            {"type": "object", "properties": {"at": {"type": "object", "properties": None, "required": None}}},
            {"type": "object", "properties": {"at": {"type": "object"}}},
        ),
        (
            {"type": None, "properties": {"at": {"type": "string", "default": None, "enum": ["a", None]}}},
            {"type": "object", "properties": {"at": {"type": "string", "default": None, "enum": ["a", None]}}},
        ),
        (
            {"properties": {"enum": {"enum": None, "examples": None, "const": None}, "at": {"items": {"enum": None}}}},
            {"type": "object", "properties": {"enum": {"const": None}, "at": {"items": {}}}},
        ),
        ({**CITY, "properties": {**CITY["properties"], "required": {"items": None}}}, None),
        ({"$ref": "#/$defs/c", "$defs": {"c": CITY}}, {**CITY, "$defs": {"c": CITY}}),
        ({"$ref": "#/$defs/b", "$defs": {"b": {"$ref": "#/$defs/c"}, "c": CITY}}, None),
        ({"type": ["object", "null"], "properties": {"a": None}}, {"type": "object", "properties": {"a": {}}}),
        (
            {"properties": {"a": {"type": "object", "properties": []}}, "required": []},
            {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}, "required": []},
        ),
        ({"type": "object", "properties": []}, {"type": "object", "properties": {}}),
        ({"$ref": "#"}, {"type": "object", "properties": {}, "$ref": "#"}),
    ],
)
def test_null_members_are_left_out_and_references_at_root_resolved(
    schema: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    result = with_properties(schema)
    assert result == flatten(schema)
    assert "city" in result["properties"] or expected is not None
    if expected is not None:
        assert result == {name: value for name, value in expected.items() if value is not ...}


def test_keywords_are_left_out_at_any_depth_but_not_names_of_properties() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "additionalProperties": False,
        "properties": {"format": {"const": "a"}, "at": {"items": {"additionalProperties": False, "format": "uri"}}},
    }
    assert dispensable_keywords(schema) == {"$schema", "additionalProperties", "const", "format"}
    assert without_keywords(schema, frozenset({"$schema", "additionalProperties", "const", "format"})) == {
        "properties": {"format": {"enum": ["a"]}, "at": {"items": {}}}
    }


@pytest.mark.parametrize(
    ("schema", "required"),
    [
        ({"anyOf": [CITY, PLACE]}, []),
        ({"type": "object", "oneOf": [CITY, PLACE]}, []),
        ({"allOf": [CITY, PLACE]}, ["city", "lat"]),
        ({"anyOf": [{"allOf": [CITY, PLACE]}]}, ["city", "lat"]),
        ({**CITY, "oneOf": [PLACE, {"type": "object"}]}, ["city"]),
        ({"oneOf": [{"$ref": "#/$defs/c"}, PLACE], "$defs": {"c": CITY}}, []),
    ],
)
def test_alternatives_at_root_are_merged(schema: dict[str, Any], required: list[str]) -> None:
    flat = flatten(schema)
    assert flat is not None
    assert (flat["type"], flat["properties"], flat["required"]) == ("object", BOTH, required)
    assert not {"anyOf", "oneOf", "allOf"} & flat.keys()


def op(value: object, **others: Any) -> dict[str, Any]:
    properties = {"op": {"const": value}, **others}
    return {"properties": properties, "required": list(properties)}


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
@pytest.mark.parametrize(
    ("branches", "merged"),
    [
        ([op("add", x={}), op("del", y={})], {"anyOf": [{"const": "add"}, {"const": "del"}]}),
        ([op("add"), op("add"), op("del")], {"anyOf": [{"const": "add"}, {"const": "del"}]}),
        ([op(1), op(True)], {"anyOf": [{"const": 1}, {"const": True}]}),
        ([op("add", x={}), op("add", y={})], {"const": "add"}),
        ([{"$ref": "#/$defs/add"}, op("del")], {"anyOf": [{"const": "add"}, {"const": "del"}]}),
        (
            [op("add"), {"oneOf": [op("del"), op("move")]}],
            {"anyOf": [{"const": "add"}, {"anyOf": [{"const": "del"}, {"const": "move"}]}]},
        ),
    ],
)
def test_property_that_differs_between_alternatives_accepts_each_of_them(
    keyword: str, branches: list[Any], merged: Any
) -> None:
    unconstrained: list[dict[str, Any]] = [{}, {"properties": {"op": {}}}]
    for given in unconstrained:
        flat = flatten({keyword: branches, "$defs": {"add": op("add")}, **given})
        assert flat is not None
        assert flat["required"] == ["op"]
        assert flat["properties"]["op"] == merged
    flat = flatten({keyword: branches, "$defs": {"add": op("add")}, "properties": {"op": {"type": "string"}}})
    assert flat is not None
    assert flat["properties"]["op"] == {"type": "string"}


def test_property_that_differs_between_parts_of_all_must_fit_each_of_them() -> None:
    flat = flatten({"allOf": [{"properties": {"n": {"minimum": 1}}}, {"properties": {"n": {"maximum": 9}}}]})
    assert flat is not None
    assert flat["properties"] == {"n": {"allOf": [{"minimum": 1}, {"maximum": 9}]}}


@pytest.mark.parametrize("null", [{"type": "null"}, {"type": ["null"]}, {"const": None}, {"enum": [None]}])
@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_null_as_alternative_is_left_out(keyword: str, null: Any) -> None:
    assert flatten({keyword: [CITY, null]}) == CITY
    assert flatten({keyword: [null, {**CITY, "type": ["object", "null"]}]}) == CITY
    assert flatten({keyword: [null]}) == {"type": "object", "properties": {}, "required": []}


@pytest.mark.parametrize("branch", [{"type": "string"}, True, {"$ref": "https://example.com/schema"}])
def test_alternative_that_is_no_object_cannot_be_merged(branch: Any) -> None:
    assert flatten({"anyOf": [CITY, branch]}) is None


def test_references_are_replaced_and_recursive_ones_accept_anything() -> None:
    schema = {"type": "object", "properties": {"at": {"$ref": "#/$defs/place"}}, "$defs": {"place": PLACE}}
    assert inline_references(schema) == {"type": "object", "properties": {"at": PLACE}}
    tree = {"properties": {"next": {"$ref": "#"}}}
    assert "$ref" not in str(inline_references(tree))
