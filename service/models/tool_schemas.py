"""JSON schemas of tools in the forms that hosts accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

_BRANCHES = ("anyOf", "oneOf", "allOf")
_LISTS = (*_BRANCHES, "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
#: Keywords whose value may be null.
_VALUES = ("default", "const", "example")
#: Keywords that a schema does not keep its meaning without.
_ESSENTIAL = frozenset(("type", "properties", "required", "items", "enum", "description", "$ref", *_BRANCHES, *_MAPS))
_REFERENCE = "#/"
_MAX_DEPTH = 32


def with_properties(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object schema with `properties`, which strict hosts require even if there are none.

    Members that are null, but for values such as a default, are left out, and a `$ref` at the root is resolved.
    """
    schema = {"type": "object", **_resolved(_without_nulls(parameters))}
    if _is_object(schema["type"]):
        schema["type"] = "object"  # not null as well
    schema.setdefault("properties", {})
    return schema


def without_keywords(parameters: Mapping[str, Any], keywords: frozenset[str]) -> dict[str, Any]:
    """Return `parameters` without `keywords`, at any depth; it accepts what it accepted, and more."""

    def strip(schema: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in schema.items() if name not in keywords}
        if "const" in schema and "const" not in kept:
            kept["enum"] = [schema["const"]]
        return kept

    return _rewritten(parameters, strip)


def dispensable_keywords(parameters: Mapping[str, Any]) -> frozenset[str]:
    """Return the keywords in `parameters` that only narrow what it accepts, or annotate it."""
    found: set[str] = set()

    def collect(schema: Mapping[str, Any]) -> dict[str, Any]:
        found.update(schema)
        return dict(schema)

    _rewritten(parameters, collect)
    return frozenset(found - _ESSENTIAL)


def flatten(parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return `parameters` without `anyOf`, `oneOf` and `allOf` at the root, which Anthropic refuses.

    The result accepts all objects that the original accepts, and more: the properties of every branch, of which only
    those are required that every alternative requires. `None` if a branch is not the schema of an object, or null.
    """
    parameters = _resolved(_without_nulls(parameters))
    schema = {name: value for name, value in parameters.items() if name not in _BRANCHES}
    for keyword in _BRANCHES:
        if not (branches := parameters.get(keyword)):
            continue
        found = [_flat_branch(branch, parameters) for branch in branches if not _is_null(branch)]
        flat = [branch for branch in found if branch is not None]
        if len(flat) != len(found):
            return None
        given = {name: part for name, part in (schema.get("properties") or {}).items() if part not in ({}, True)}
        schema["properties"] = {**_merged([branch["properties"] for branch in flat], keyword), **given}
        required = [set(branch.get("required") or ()) for branch in flat] or [set()]
        common = set.union(*required) if keyword == "allOf" else set.intersection(*required)
        schema["required"] = sorted(common | set(schema.get("required") or ()))
    return with_properties(schema)


def inline_references(schema: Any, root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """Return `schema` with its local `$ref`s replaced by what they refer to; a recursive one accepts anything."""
    root = schema if root is None else root
    if isinstance(schema, list):
        return [inline_references(item, root, depth + 1) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        target = _resolve(reference, root)
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        if target is None or depth > _MAX_DEPTH:
            return rest
        schema = {**target, **rest}
        return inline_references(schema, root, depth + 1)
    kept = (item for item in schema.items() if item[0] not in ("$defs", "definitions"))
    return {name: inline_references(value, root, depth + 1) for name, value in kept}


def _without_nulls(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Typed clients serialise what is not set as null, and PHP an empty object as a list."""
    text = orjson.dumps(parameters, default=dict)
    if b":null" not in text and b'"properties":[]' not in text:  # cheaper than a look at every member
        return parameters

    def strip(schema: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in schema.items() if value is not None or name in _VALUES}
        if "properties" in kept:
            kept["properties"] = {name: {} if part is None else part for name, part in dict(kept["properties"]).items()}
        return kept

    return _rewritten(parameters, strip)


def _resolved(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `parameters` with what a `$ref` at its root refers to."""
    for _ in range(_MAX_DEPTH):
        reference = parameters.get("$ref")
        target = _resolve(reference, parameters) if isinstance(reference, str) else None
        if target is None or target is parameters:
            break
        parameters = {**{name: value for name, value in parameters.items() if name != "$ref"}, **target}
    return parameters


def _rewritten(schema: Mapping[str, Any], rewrite: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return `schema` with `rewrite` applied to it and to each schema in it."""

    def each(part: Any) -> Any:
        return _rewritten(part, rewrite) if isinstance(part, Mapping) else part

    result = rewrite(schema)
    for name, value in result.items():
        if name in _MAPS and isinstance(value, Mapping):
            result[name] = {one: each(part) for one, part in value.items()}
        elif name in _LISTS and isinstance(value, list):
            result[name] = [each(part) for part in value]
        elif name in _SCHEMAS:
            result[name] = each(value)
    return result


def _flat_branch(branch: Any, root: Mapping[str, Any]) -> dict[str, Any] | None:
    if isinstance(branch, Mapping) and isinstance(reference := branch.get("$ref"), str):
        branch = _resolve(reference, root)
    if not isinstance(branch, Mapping) or not _is_object(branch.get("type", "object")) or "$ref" in branch:
        return None
    return flatten(branch)


def _merged(branches: list[dict[str, Any]], keyword: str) -> dict[str, Any]:
    """Return the properties of all `branches`; one that differs between them accepts what each branch accepts."""
    found: dict[str, dict[bytes, Any]] = {}
    for properties in branches:
        for name, part in properties.items():
            parts = found.setdefault(name, {})
            parts[orjson.dumps(part, default=dict, option=orjson.OPT_SORT_KEYS)] = part
    joined = "allOf" if keyword == "allOf" else "anyOf"
    return {
        name: {joined: [*parts.values()]} if len(parts) > 1 else next(iter(parts.values()))
        for name, parts in found.items()
    }


def _is_object(kind: Any) -> bool:
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _is_null(branch: Any) -> bool:
    """True for the alternative "no arguments", which calls of functions always have."""
    if not isinstance(branch, Mapping):
        return False
    return branch.get("type") in ("null", ["null"]) or branch.get("enum") == [None] or branch.get("const", ...) is None


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not reference.startswith(_REFERENCE):
        return None
    target: Any = root
    for part in reference.removeprefix(_REFERENCE).split("/"):
        target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
    return target if isinstance(target, Mapping) else None
