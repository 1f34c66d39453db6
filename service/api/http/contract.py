"""Load the contract, `openapi.yaml`, and derive JSON Schemas from it.

The contract is the only definition of requests and responses.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

import service


def contract_path() -> Path:
    """Return the contract's path: inside the installed package, or at the top of a checkout."""
    installed = Path(service.__file__).with_name("openapi.yaml")
    return installed if installed.exists() else installed.parents[1] / "openapi.yaml"


def load_contract(*, authenticated: bool = True) -> dict[str, Any]:
    """Read the whole contract: from the JSON that a wheel has beside `openapi.yaml`, else from that.

    Without authentication (`gateway.auth.mode: "none"`) it has no security requirement and no 401.
    """
    packed = Path(service.__file__).with_name("openapi.json")
    document: dict[str, Any] = orjson.loads(packed.read_bytes()) if packed.exists() else _read_yaml()
    return document if authenticated else _without_security(document)


def _read_yaml() -> Any:
    # The C loader is the safe loader, an order of magnitude faster.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(contract_path().read_bytes(), Loader=loader)  # noqa: S506


def _without_security(document: dict[str, Any]) -> dict[str, Any]:
    open_document = copy.deepcopy(document)
    del open_document["security"]
    del open_document["components"]["securitySchemes"]
    for item in open_document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("401", None)
    return open_document


_PROSE = frozenset({"description", "summary", "example", "examples", "tags"})
#: Keys whose value is an object with names of its own, which may be words of OpenAPI.
_NAMED = frozenset({"properties", "x-unsupported-values"})


def to_bound_contract(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the contract that Connexion binds, without prose, examples, callbacks and responses.

    The whole is several times as large. An operation keeps the media types of its responses, as one of them.
    `x-response-headers` are the names of all the headers of responses.
    """
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    responses = [response for operation in operations for response in _responses_of(operation, document)]
    components = {key: value for key, value in document["components"].items() if key not in ("responses", "headers")}
    paths = {
        path: {method: _to_bound_operation(operation, document) for method, operation in item.items()}
        for path, item in document["paths"].items()
    }
    headers = sorted({name for response in responses for name in response.get("headers", ())})
    bound: dict[str, Any] = _without_prose({**document, "paths": paths, "components": components})
    return {**bound, "x-response-headers": headers}


def _to_bound_operation(operation: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in operation.items() if key != "callbacks"}
    contents = (response.get("content", ()) for response in _responses_of(operation, document))
    media_types = dict.fromkeys(name for content in contents for name in content)
    return {**kept, "responses": {"default": {"content": {name: {} for name in media_types}}}}


def _responses_of(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    shared = document["components"]["responses"]
    for response in operation["responses"].values():
        yield shared[response["$ref"].rpartition("/")[2]] if "$ref" in response else response


def _without_prose(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_prose(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    return {
        key: {name: _without_prose(part) for name, part in value.items()} if key in _NAMED else _without_prose(value)
        for key, value in node.items()
        if key not in _PROSE
    }


def to_json_schema(schema: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    """Translate `schema`, a schema object of `document` (OpenAPI 3.0), to a self-contained JSON Schema (2020-12).

    It accepts the same values and locates errors precisely: a `oneOf` becomes one `if`/`then` for each branch, chosen
    by its discriminator or by the value's type, so that an error names the field inside the intended branch.
    """
    components = document["components"]["schemas"]
    root = _translate(schema, components)
    definitions: dict[str, Any] = {}
    pending = _referenced(root)
    while pending:
        name = pending.pop()
        definitions[name] = _translate(components[name], components)
        pending |= _referenced(definitions[name]) - definitions.keys()
    return root | {"$defs": definitions}


def _referenced(schema: Any) -> set[str]:
    """Return the names of the definitions that a JSON Schema refers to."""
    if isinstance(schema, Mapping):
        names = set().union(*map(_referenced, schema.values()))
        return names | {schema["$ref"].rpartition("/")[2]} if "$ref" in schema else names
    return set().union(*map(_referenced, schema)) if isinstance(schema, list) else set()


_PLAIN_KEYS = frozenset(
    {"type", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "required"}
    | {"minItems", "maxItems", "minProperties", "maxProperties"}
    | {"x-unsupported", "x-unsupported-values", "x-expected"}
)


def _translate(schema: Any, components: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"$ref": schema["$ref"].replace("#/components/schemas/", "#/$defs/")}
    result = {key: value for key, value in schema.items() if key in _PLAIN_KEYS}
    if schema.get("maxProperties") == 0 and schema.get("minProperties"):  # `NoValue`: no object, only null
        return {**{key: result[key] for key in ("x-unsupported",) if key in result}, "type": "null"}
    if "properties" in schema:
        result["properties"] = {name: _translate(part, components) for name, part in schema["properties"].items()}
    if "items" in schema:
        result["items"] = _translate(schema["items"], components)
    if "additionalProperties" in schema:
        extra = schema["additionalProperties"]
        result["additionalProperties"] = extra if isinstance(extra, bool) else _translate(extra, components)
    for every in ("allOf", "anyOf"):
        if every in schema:
            result[every] = [_translate(part, components) for part in schema[every]]
    if "oneOf" in schema:
        choose = _by_discriminator if "discriminator" in schema else _by_type
        result.update(choose(schema, components))
    if schema.get("nullable") and "oneOf" not in schema:  # a choice has null among its types
        result["type"] = [result["type"], "null"]
    return result


def _by_discriminator(schema: Any, components: Mapping[str, Any]) -> dict[str, Any]:
    name, mapping = schema["discriminator"]["propertyName"], schema["discriminator"]["mapping"]
    required = {value: _required_by(reference, components) for value, reference in mapping.items()}
    chosen = {value: [{"required": [name], "properties": {name: {"const": value}}}] for value in mapping}
    optional = [value for value in mapping if name not in required[value]]
    for value, condition in _without_discriminator(name, {value: required[value] for value in optional}).items():
        chosen[value].append(condition)
    values: dict[str, Any] = {"type": "string", "enum": list(mapping)}
    if optional:
        values = {"type": ["string", "null"], "enum": [*mapping, None]}
    if "x-unsupported-values" in schema:
        values["x-unsupported-values"] = schema["x-unsupported-values"]
    branches = [
        {
            "if": {"type": "object", **(chosen[value][0] if len(chosen[value]) == 1 else {"anyOf": chosen[value]})},
            "then": {"$ref": reference.replace("#/components/schemas/", "#/$defs/")},
        }
        for value, reference in mapping.items()
    ]
    types = list(dict.fromkeys(kind for branch in schema["oneOf"] for kind in _types_of(branch, components)))
    return {"type": types, "required": [] if optional else [name], "properties": {name: values}, "allOf": branches}


def _without_discriminator(name: str, required: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the conditions for the branches of values without the property `name`, or with null.

    `required` are the fields of the branches that do not require it. The first of them is chosen, unless the value has
    what another one requires and nothing that the first one requires.
    """
    if not required:
        return {}
    null = {"type": "null"}
    first, *others = required
    absent = dict.fromkeys([name, *required[first]], null)
    conditions: dict[str, Any] = {other: {"required": required[other], "properties": absent} for other in others}
    otherwise = {"not": {"anyOf": list(conditions.values())}} if others else {}
    return {first: {"properties": {name: null}, **otherwise}, **conditions}


def _required_by(reference: str, components: Mapping[str, Any]) -> list[str]:
    """Return the fields that a component requires, or some of its variants."""
    schema = components[reference.rpartition("/")[2]]
    variants = [_required_by(part["$ref"], components) for part in schema.get("oneOf", ())]
    return list(dict.fromkeys([*schema.get("required", ()), *(field for fields in variants for field in fields)]))


def _by_type(schema: Any, components: Mapping[str, Any]) -> dict[str, Any]:
    branches: dict[tuple[str, ...], list[Any]] = {}
    for branch in schema["oneOf"]:
        branches.setdefault(tuple(_types_of(branch, components)), []).append(branch)
    choices = [
        {"if": {"type": list(names)}, "then": _any_of_type(names, same, components)} for names, same in branches.items()
    ]
    return {"type": [name for names in branches for name in names], "allOf": choices}


def _any_of_type(names: tuple[str, ...], branches: list[Any], components: Mapping[str, Any]) -> dict[str, Any]:
    same = [_translate(branch, components) for branch in branches]
    if len(same) == 1:
        return same[0]
    if names != ("array",) or not all("items" in branch for branch in branches):
        return {"oneOf": same}
    # An error of `oneOf` has the errors of all branches, for every element: lists are chosen by their first one.
    kinds = [_types_of(branch["items"], components) for branch in branches]
    empty = same[0] if all(branch.get("minItems") for branch in branches) else {"oneOf": same}
    choices: list[dict[str, Any]] = [{"if": {"maxItems": 0}, "then": empty}]
    for kind, branch in zip(kinds, same, strict=True):
        choices.append({"if": {"minItems": 1, "prefixItems": [{"type": kind}]}, "then": branch})
    return {"prefixItems": [{"type": [name for kind in kinds for name in kind]}], "allOf": choices}


def _types_of(branch: Mapping[str, Any], components: Mapping[str, Any]) -> list[str]:
    resolved = components[branch["$ref"].rpartition("/")[2]] if "$ref" in branch else branch
    types = _translate(resolved, components)["type"]
    return [types] if isinstance(types, str) else types
