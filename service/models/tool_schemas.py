"""JSON schemas of tools in the forms that hosts accept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BRANCHES = ("anyOf", "oneOf", "allOf")
_REFERENCE = "#/"
_MAX_DEPTH = 32


def with_properties(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object schema with `properties`, which strict hosts require even if there are none."""
    schema = {"type": "object", **parameters}
    if schema.get("properties") is None:
        schema["properties"] = {}
    return schema


def flatten(parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return `parameters` without `anyOf`, `oneOf` and `allOf` at the root, which Anthropic refuses.

    The result accepts all that the original accepts, and more: the properties of every branch, of which only those are
    required that every alternative requires. `None` if a branch is not the schema of an object.
    """
    schema = {name: value for name, value in parameters.items() if name not in _BRANCHES}
    for keyword in _BRANCHES:
        if not (branches := parameters.get(keyword)):
            continue
        found = [_flat_branch(branch, parameters) for branch in branches]
        flat = [branch for branch in found if branch is not None]
        if len(flat) != len(found):
            return None
        properties = {name: value for branch in flat for name, value in branch["properties"].items()}
        schema["properties"] = {**properties, **(schema.get("properties") or {})}
        required = [set(branch.get("required") or ()) for branch in flat]
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


def _flat_branch(branch: Any, root: Mapping[str, Any]) -> dict[str, Any] | None:
    if isinstance(branch, Mapping) and isinstance(reference := branch.get("$ref"), str):
        branch = _resolve(reference, root)
    if not isinstance(branch, Mapping) or branch.get("type", "object") != "object" or "$ref" in branch:
        return None
    return flatten(branch)


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not reference.startswith(_REFERENCE):
        return None
    target: Any = root
    for part in reference.removeprefix(_REFERENCE).split("/"):
        target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
    return target if isinstance(target, Mapping) else None
