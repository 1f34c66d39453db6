"""Compare two versions of the contract: what a client of the older one would no longer get.

A request may become wider (more fields, values, larger limits), a response narrower. Other statuses of errors, new
operations and new error codes, which the contract announces, break nobody.

Run as a program, it stores the contract as the released one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from service.api.http.contract import load_contract

RELEASED = Path(__file__).parents[1] / "released" / "openapi.json"

_METHODS = ("get", "head", "post", "put", "patch", "delete")
_OPEN = "ErrorCode"  # may grow
_NOTES = {"description", "summary", "example", "examples", "tags", "deprecated", "contact", "license"}
_MEANT = ("x-content-schema", "x-end")
_MAPS = ("properties", "schemas", "headers")  # their keys are names
_UPPER = ("maximum", "maxLength", "maxItems", "maxProperties")
_LOWER = ("minimum", "minLength", "minItems", "minProperties")


def strip_notes(node: Any, *, named: bool = False) -> Any:
    """Return a document without what only people read; `named` says that the keys of `node` are names."""
    if isinstance(node, Mapping):
        kept = {key: value for key, value in node.items() if named or not _is_note(key)}
        return {
            key: strip_notes(value, named=key in ("properties", "schemas", "headers")) for key, value in kept.items()
        }
    return [strip_notes(value) for value in node] if isinstance(node, list) else node


def _is_note(key: str) -> bool:
    return key in _NOTES or (key.startswith("x-") and key not in _MEANT)


def breaking_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the changes from `old` to `new` (OpenAPI 3.0) that break a client of `old`, one line each."""
    return sorted({change for path in old["paths"] for change in _path_changes(path, old, new)})


def _path_changes(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for method in _METHODS:
        if method not in old["paths"][path]:
            continue
        label = f"{method.upper()} {path}"
        if method not in new["paths"].get(path, {}):
            yield f"{label}: is gone"
        else:
            yield from _Operations(label, old, new).changes(old["paths"][path][method], new["paths"][path][method])


class _Operations:
    """The same operation in both documents."""

    def __init__(self, label: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        self._label = label
        self._old, self._new = old, new
        self._compared = set[tuple[str, str, bool]]()

    def changes(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"{self._label}: operationId is {new['operationId']}, was {old['operationId']}"
        if old.get("security") == [] and new.get("security") != []:
            yield f"{self._label}: needs a token"
        for change in (*self._parameters(old, new), *self._body(old, new), *self._responses(old, new)):
            yield f"{self._label}: {change}"

    def _parameters(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
        before, after = self._by_name(old, self._old), self._by_name(new, self._new)
        for name, parameter in before.items():
            if name not in after:
                yield f"{name} is gone"
                continue
            if after[name].get("required") and not parameter.get("required"):
                yield f"{name} is required"
            yield from self._schemas(name, parameter["schema"], after[name]["schema"], sent=True)
        yield from (f"{name} is required" for name, one in after.items() if name not in before and one.get("required"))

    def _by_name(self, operation: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
        found = [_resolve(one, document) for one in operation.get("parameters", ())]
        return {f"{one['in']} {one['name']}": one for one in found}

    def _body(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
        before, after = old.get("requestBody", {}), new.get("requestBody", {})
        if after.get("required") and not before.get("required"):
            yield "request is required"
        yield from self._contents("request", before, after, sent=True)

    def _responses(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                if status.startswith("2"):
                    yield f"{status} is gone"
                continue
            before, after = _resolve(response, self._old), _resolve(new["responses"][status], self._new)
            gone = before.get("headers", {}).keys() - after.get("headers", {}).keys()
            yield from (f"{status} header {name} is gone" for name in gone)
            yield from self._contents(status, before, after, sent=False)

    def _contents(self, place: str, old: Mapping[str, Any], new: Mapping[str, Any], *, sent: bool) -> Iterator[str]:
        for kind, content in old.get("content", {}).items():
            if kind not in new.get("content", {}):
                yield f"{place} {kind} is gone"
            else:
                yield from self._schemas(place, content["schema"], new["content"][kind]["schema"], sent=sent)

    def _schemas(self, place: str, old: Mapping[str, Any], new: Mapping[str, Any], *, sent: bool) -> Iterator[str]:
        """Compare two schemas of something that clients send, or receive."""
        names = str(old.get("$ref", "")), str(new.get("$ref", ""))
        if all(names):
            if (*names, sent) in self._compared:
                return
            self._compared.add((*names, sent))
        old, new = _resolve(old, self._old), _resolve(new, self._new)
        narrow, wide = (old, new) if sent else (new, old)  # all values of `narrow` must be values of `wide`
        if not names[0].endswith(f"/{_OPEN}"):
            yield from _value_changes(place, narrow, wide)
        yield from self._fields(place, old, new, sent=sent)
        for key in ("items", "additionalProperties", "x-content-schema"):
            if isinstance(old.get(key), Mapping) and isinstance(new.get(key), Mapping):
                yield from self._schemas(f"{place}[]", old[key], new[key], sent=sent)
        yield from self._variants(place, old, new, sent=sent)

    def _fields(self, place: str, old: Mapping[str, Any], new: Mapping[str, Any], *, sent: bool) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(required[1] - required[0] if sent else required[0] - required[1]):
            yield f"{place}.{name} is {'' if sent else 'not always there: it was '}required"
        for name, field in before.items():
            if name not in after:
                yield f"{place}.{name} is gone"
            else:
                yield from self._schemas(f"{place}.{name}", field, after[name], sent=sent)

    def _variants(self, place: str, old: Mapping[str, Any], new: Mapping[str, Any], *, sent: bool) -> Iterator[str]:
        for key in ("oneOf", "anyOf", "allOf"):
            before, after = ({_kind(one): one for one in schema.get(key, ())} for schema in (old, new))
            for name in sorted(before.keys() - after.keys() if sent else after.keys() - before.keys()):
                if before and after:
                    yield f"{place}: {name} is {'gone' if sent else 'new'}"
            for name in before.keys() & after.keys():
                yield from self._schemas(place, before[name], after[name], sent=sent)


def _value_changes(place: str, narrow: Mapping[str, Any], wide: Mapping[str, Any]) -> Iterator[str]:
    """Report what lets `wide` have fewer values than `narrow`."""
    types = narrow.get("type"), wide.get("type")
    if types[1] and types[0] != types[1] and types != ("integer", "number"):
        yield f"{place}: type {types[0]} is not {types[1]}"
    if narrow.get("nullable") and "type" in wide and not wide.get("nullable"):
        yield f"{place}: null"
    if "enum" in wide and (lost := [one for one in narrow.get("enum", ["any"]) if one not in wide["enum"]]):
        yield f"{place}: values {lost}"
    for key in _UPPER:
        if key in wide and narrow.get(key, float("inf")) > wide[key]:
            yield f"{place}: {key} {narrow.get(key)} and {wide[key]}"
    for key in _LOWER:
        if key in wide and narrow.get(key, float("-inf")) < wide[key]:
            yield f"{place}: {key} {narrow.get(key)} and {wide[key]}"
    if "pattern" in wide and narrow.get("pattern") != wide["pattern"]:
        yield f"{place}: pattern"


def _kind(variant: Mapping[str, Any]) -> str:
    return str(variant.get("$ref", variant.get("type"))).rpartition("/")[2]


def _resolve(node: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        target: Any = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


if __name__ == "__main__":
    RELEASED.write_bytes(orjson.dumps(strip_notes(load_contract())) + b"\n")
