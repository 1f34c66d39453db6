"""The contract as it is published: OpenAPI 3.0, which this program serves, and 3.1 and 3.2, derived from it.

Keys for this program become sentences or are left out. Refused fields that differ from another one in spelling only are
left out, because generators make one name of both. The derived documents have a schema for the data of each event of a
stream, and have operations that answer with JSON or a stream twice, so that each has one type of answer: the path of
the stream ends in `#stream`, which clients do not send.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import orjson
import yaml

_STREAM, _JSON = "text/event-stream", "application/json"
_PREFIX = "#/components/schemas/"
_INTERNAL_KEYS = frozenset(
    {"x-openapi-router-controller", "x-bearerInfoFunc", "x-endpoint", "x-scope", "x-limited", "x-expected"}
)
_EVENT_KEYS = frozenset({"x-content-schema", "x-end"})
_NULL = {"type": "null"}
_STREAM_REQUEST = {
    "type": "object",
    "required": ["stream"],
    "properties": {"stream": {"type": "boolean", "const": True}},
}


class PublishedContract:
    """The documents made from `contract`, which is kept compressed until one is asked for."""

    def __init__(self, contract: Mapping[str, Any]) -> None:
        self._packed = zlib.compress(orjson.dumps(contract), level=1)

    def _load(self) -> Any:
        return orjson.loads(zlib.decompress(self._packed))

    @cached_property
    def version(self) -> str:
        """The contract's own version."""
        return str(self._load()["info"]["version"])

    @cached_property
    def openapi_3_0(self) -> bytes:
        """OpenAPI 3.0 as JSON."""
        return orjson.dumps(to_openapi_3_0(self._load()))

    @cached_property
    def openapi_3_0_yaml(self) -> bytes:
        """OpenAPI 3.0 as YAML, without aliases, which some parsers do not support."""
        document = orjson.loads(self.openapi_3_0)  # unshares nodes, hence no aliases
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120).encode()

    @cached_property
    def openapi_3_1(self) -> bytes:
        """OpenAPI 3.1 as JSON."""
        return orjson.dumps(to_openapi_3_1(self._load()))

    @cached_property
    def openapi_3_2(self) -> bytes:
        """OpenAPI 3.2 as JSON."""
        return orjson.dumps(to_openapi_3_2(self._load()))


def to_openapi_3_0(contract: Mapping[str, Any]) -> dict[str, Any]:
    """Return `contract` for callers, without the keys meant for the program that serves it.

    A stream has no type: to generators it is one text, to Schemathesis a list of objects. Choices that include null say
    `nullable`, too, which is all that some generators read.
    """
    document = _to_public(contract, _INTERNAL_KEYS | _EVENT_KEYS)
    schemas = document["components"]["schemas"]
    document = _with_nullable_choices(document, _null_components(contract), schemas)
    for _, content in _streams_of(document["paths"]):
        name = content["schema"]["$ref"].removeprefix(_PREFIX)
        content["schema"] = {"description": schemas[name]["description"]}
    return dict(document)


def to_openapi_3_1(contract: Mapping[str, Any]) -> dict[str, Any]:
    """Return `contract` as OpenAPI 3.1.

    A stream is a string whose content is a list of events.
    https://json-schema.org/draft/2020-12/json-schema-validation#name-contentschema
    """

    def to_stream(event: Any, example: Mapping[str, str]) -> dict[str, Any]:
        text = "".join(f"{name}: {value}\n" for name, value in example.items())
        return {"schema": _to_content(_STREAM, {"type": "array", "items": event}), "example": f"{text}\n"}

    return _derive(contract, "3.1.1", to_stream)


def to_openapi_3_2(contract: Mapping[str, Any]) -> dict[str, Any]:
    """Return `contract` as OpenAPI 3.2, whose `itemSchema` describes one event of a stream.

    https://spec.openapis.org/oas/v3.2.0.html#sequential-media-types
    """
    return _derive(contract, "3.2.0", lambda event, example: {"itemSchema": event, "example": [example]})


def _derive(contract: Mapping[str, Any], version: str, to_stream: Callable[[Any, Any], Any]) -> dict[str, Any]:
    document = _to_2020_12(_to_public(contract, _INTERNAL_KEYS), _null_components(contract))
    document["openapi"] = version
    document["paths"] = dict(_split(document["paths"]))
    document["components"]["schemas"]["StreamRequest"] = _STREAM_REQUEST
    for response, content in _streams_of(document["paths"]):
        response["content"][_STREAM] = to_stream(content["schema"], content["example"])
    return dict(document)


def _to_public(contract: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    document: dict[str, Any] = _without_internal_keys(contract, keys)
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        if "discriminator" in schema and not _is_required(schema["discriminator"], schemas):
            # Who reads a discriminator demands its property; the variants differ without it, too.
            del schema["discriminator"]
            schema["anyOf"] = schema.pop("oneOf")
    return document


def _is_required(discriminator: Mapping[str, Any], schemas: Mapping[str, Any]) -> bool:
    """Return True if all variants require the discriminator's property."""
    variants = [schemas[reference.removeprefix(_PREFIX)] for reference in discriminator["mapping"].values()]
    return all(discriminator["propertyName"] in variant.get("required", ()) for variant in variants)


def _without_internal_keys(node: Any, keys: frozenset[str]) -> Any:
    if isinstance(node, list):
        return [_without_internal_keys(value, keys) for value in node]
    if not isinstance(node, Mapping):
        return node
    public = {key: _without_internal_keys(value, keys) for key, value in node.items() if key not in keys}
    if isinstance(node.get("properties"), Mapping):
        public["properties"] = {name: public["properties"][name] for name in _distinct_fields(node["properties"])}
    notes = list(_pop_notes(public))
    if notes:
        public["description"] = " ".join(filter(None, (public.get("description", "").strip(), *notes)))
    return public


def _pop_notes(schema: dict[str, Any]) -> Iterator[str]:
    """Remove the reasons for refusals from `schema`, and return them as sentences."""
    if isinstance(schema.get("x-unsupported"), str):
        yield schema.pop("x-unsupported")
    if "x-unsupported-values" in schema:
        for value, reason in schema.pop("x-unsupported-values").items():
            yield f"`{value}` is not supported: {reason}"


def _distinct_fields(fields: Mapping[str, Any]) -> list[str]:
    """Return the names of fields, without refused ones that differ from another in capitals and underscores only."""
    refused = [name for name, field in fields.items() if isinstance(field, Mapping) and "x-unsupported" in field]
    accepted = [name for name in fields if name not in refused]
    first = {name.replace("_", "").lower(): name for name in reversed([*accepted, *refused])}
    return [name for name in fields if name in accepted or name in first.values()]


def _with_nullable_choices(node: Any, null: frozenset[str], schemas: Mapping[str, Any]) -> Any:
    """Say `nullable` of a `oneOf` that is one schema or null: beside it."""
    if isinstance(node, list):
        return [_with_nullable_choices(value, null, schemas) for value in node]
    if not isinstance(node, Mapping):
        return node
    result = {key: _with_nullable_choices(value, null, schemas) for key, value in node.items()}
    others = [one for one in node.get("oneOf", ()) if one.get("$ref") not in null]
    if len(others) != 1 or len(node["oneOf"]) == 1:
        return result
    only = schemas.get(others[0].get("$ref", "").removeprefix(_PREFIX), others[0])
    kind = only.get("type")
    if kind not in ("object", "string"):
        return result
    return result | {"type": kind, "nullable": True, "anyOf": result.pop("oneOf")}


def _null_components(contract: Mapping[str, Any]) -> frozenset[str]:
    """Return the references to schemas that only null matches, which OpenAPI 3.0 has no type for."""
    schemas = contract["components"]["schemas"]
    return frozenset(_PREFIX + name for name, schema in schemas.items() if _is_null(schema))


def _is_null(schema: Mapping[str, Any]) -> bool:
    return schema.get("maxProperties") == 0 and bool(schema.get("minProperties"))


def _to_2020_12(node: Any, null: frozenset[str]) -> Any:
    """Translate all schemas of a document to JSON Schema 2020-12."""
    if isinstance(node, list):
        return [_to_2020_12(value, null) for value in node]
    if not isinstance(node, Mapping):
        return node
    if node.get("$ref") in null or _is_null(node):
        return _NULL | {key: node[key] for key in ("description",) if key in node and "$ref" not in node}
    translated = {
        key: _to_2020_12(value, null) for key, value in node.items() if key != "nullable" and _PREFIX + key not in null
    }
    if "x-content-schema" in translated:
        translated = _to_event_data(translated)
    return _with_null(translated) if node.get("nullable") is True else translated


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    if "enum" in schema and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    return schema | {"type": [schema["type"], "null"]}


def _to_event_data(schema: dict[str, Any]) -> dict[str, Any]:
    content = _to_content(_JSON, schema.pop("x-content-schema"))
    end = schema.pop("x-end", None)
    return schema | ({"oneOf": [{"const": end}, {"not": {"const": end}, **content}]} if end else content)


def _to_content(media_type: str, schema: Any) -> dict[str, Any]:
    return {"type": "string", "contentMediaType": media_type, "contentSchema": schema}


def _split(paths: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Separate operations that answer with JSON or with a stream, as `stream` in the request says.

    Where that is a field of the query, only the form with JSON is left: a query cannot follow `#stream`.
    """
    for path, item in paths.items():
        both = [method for method, operation in item.items() if _has_both_forms(operation)]
        yield path, item | {method: _one_form(item[method], _JSON) for method in both}
        if "post" in both:
            yield f"{path}#stream", {"post": _to_streamed(_one_form(item["post"], _STREAM))}


def _has_both_forms(operation: Mapping[str, Any]) -> bool:
    return bool(operation["responses"].get("200", {}).get("content", {}).keys() >= {_STREAM, _JSON})


def _to_streamed(operation: dict[str, Any]) -> dict[str, Any]:
    names = {
        "operationId": operation["operationId"].replace("create", "stream", 1),
        "summary": f"{operation['summary']}, as a stream",
    }
    if "callbacks" in operation:
        names["callbacks"] = _renamed_callbacks(operation["callbacks"])
    return operation | names


def _renamed_callbacks(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """Return callbacks whose operations do not have the names of those they are copied from."""
    name = "receive_stream_ended"
    return {
        event: {url: {"post": {**item["post"], "operationId": name}} for url, item in callback.items()}
        for event, callback in callbacks.items()
    }


def _one_form(operation: Mapping[str, Any], media_type: str) -> dict[str, Any]:
    """Return `operation` with one type of answer, and with the requests that get it."""
    ok = operation["responses"]["200"]
    responses = operation["responses"] | {"200": ok | {"content": {media_type: dict(ok["content"][media_type])}}}
    if "requestBody" not in operation:
        parameters = [one for one in operation["parameters"] if one.get("name") not in ("stream", "starting_after")]
        return {**operation, "parameters": parameters, "responses": responses}
    streamed = media_type == _STREAM
    body = operation["requestBody"]
    request = body["content"][_JSON]
    examples = request["examples"].items()
    schema = {"allOf": [request["schema"], {"$ref": f"{_PREFIX}StreamRequest"}]} if streamed else request["schema"]
    request = {
        "schema": schema,
        "examples": {name: one for name, one in examples if one["value"].get("stream", False) is streamed},
    }
    return {**operation, "requestBody": body | {"content": {_JSON: request}}, "responses": responses}


def _streams_of(paths: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the responses that may be streams, with their content as a stream."""
    for item in paths.values():
        for operation in item.values():
            for response in operation["responses"].values():
                if _STREAM in response.get("content", {}):
                    yield response, response["content"][_STREAM]
