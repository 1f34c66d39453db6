"""Which checks against a schema are cheap, and which run in a process of their own."""

from __future__ import annotations

from typing import Any

import pytest

from service.core.schema_cost import MAX_VALUES, count_values, is_cheap, steps_of

TREE = {"$defs": {"node": {"properties": {"left": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"}


def doubling(levels: int) -> dict[str, Any]:
    steps = {f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(levels)}
    return {"$defs": {**steps, f"d{levels}": True}, "$ref": "#/$defs/d0"}


def nested(levels: int) -> dict[str, Any]:
    return {"not": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        TREE,
        {"$id": "https://example.com/a", "$ref": "#/$defs/a~1b", "$defs": {"a/b": {"items": [True]}}},
        {"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}, "$ref": "#/properties/%24ref"},
        {"pattern": "^[a-z]{1,64}(-[0-9]{4}){0,3}$"},
        {"$ref": "#/nowhere"},
        doubling(5),
    ],
)
def test_usual_schemas_are_cheap(schema: dict[str, Any]) -> None:
    assert is_cheap(steps_of(schema))


@pytest.mark.parametrize(
    "schema",
    [
        doubling(30),
        nested(450),
        {"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}},
        {"$ref": "https://example.com/b"},
        {"items": {"$id": "https://example.com/b"}},
        {"pattern": "((a{1,1000}){1,1000}){2}"},
        {"patternProperties": {"(a{1,1000}){1,1000}": {}}},
    ],
)
def test_unusual_schemas_are_not_cheap(schema: dict[str, Any]) -> None:
    assert not is_cheap(steps_of(schema))


def test_values_are_counted_up_to_the_limit() -> None:
    assert count_values({"enum": [1, {"a": 2}]}) == 5
    assert count_values({"enum": [[0] * 100] * 1000}) == MAX_VALUES + 1


def test_cheap_schema_is_not_cheap_for_every_answer() -> None:
    steps = steps_of({"items": {"anyOf": [{"const": number} for number in range(4000)]}})
    assert is_cheap(steps, 100)
    assert not is_cheap(steps, 1_000_000)
