"""Validate responses against the contract: status, headers, body and every event of a stream.

Stricter than a fuzzer's checks: undocumented headers are errors, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import orjson
import yaml

from service.api.http.contract import load_contract
from service.api.http.published_contract import to_openapi_3_0
from service.api.http.schema_validation import CompiledSchema

#: Headers of HTTP itself; all others must be in the contract.
TRANSPORT_HEADERS = frozenset({"date", "content-length", "content-type", "transfer-encoding", "connection"})


#: The events that end the stream of a response.
RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


class NonconformityError(AssertionError):
    """A response that does not conform to the contract."""


class Conformance:
    """Validates responses against one contract."""

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self.document = document or to_openapi_3_0(load_contract())
        self._patterns = [(self._pattern(path, item), item) for path, item in self.document["paths"].items()]
        self._schemas: dict[str, CompiledSchema] = {}

    def check(self, response: httpx.Response) -> None:
        """Raise `NonconformityError` for the first deviation from the contract."""
        request = response.request
        where = f"{request.method} {request.url.path} -> {response.status_code}"
        declared = self._declared(request.method, request.url.path, response.status_code, where)
        self._check_headers(response.headers, declared.get("headers", {}), where)
        if request.method != "HEAD":
            self._check_body(response, declared, where)

    def check_chunk(self, data: str) -> None:
        """Check the `data` of one event: a chunk, an error envelope or `[DONE]`."""
        if data == "[DONE]":
            return
        value = orjson.loads(data)
        name = "ErrorEnvelope" if "error" in value else "ChatCompletionChunk"
        self._component(name).check(value)

    def check_run_event(self, data: str) -> Any:
        """Check the `data` of one event of a run, and return its value."""
        value = orjson.loads(data)
        self._component("RunEvent").check(value)
        return value

    def check_response_event(self, data: str) -> Any:
        """Check the `data` of one event of a response, and return its value."""
        value = orjson.loads(data)
        self._component("ResponseEvent").check(value)
        return value

    def check_run_ended(self, body: Any) -> None:
        """Check the body of a webhook."""
        self._component("RunEndedMessage").check(body)

    def check_error(self, body: Any) -> None:
        """Check the body of an error response."""
        self._component("ErrorEnvelope").check(body)

    def _declared(self, method: str, path: str, status: int, where: str) -> Mapping[str, Any]:
        items = [item for pattern, item in self._patterns if pattern.fullmatch(path)]
        if not items:
            return self._resolve(self._of_unknown_path(status, where))
        # A session's key may have slashes, so that the path of its fork is that of a session, too.
        operation = next((item[method.lower()] for item in items if method.lower() in item), None)
        operation = operation or next(iter(items[0].values()))
        declared = operation["responses"].get(str(status))
        if declared is None:
            raise NonconformityError(f"{where}: this status is not in the contract")
        return self._resolve(declared)

    def _of_unknown_path(self, status: int, where: str) -> Mapping[str, Any]:
        names = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 408: "RequestTimeout", 414: "UriTooLong"}
        names |= {415: "UnsupportedMediaType", 431: "HeadersTooLarge", 500: "InternalError"}
        if status not in names:
            raise NonconformityError(f"{where}: an unlisted path cannot return this status")
        declared: Mapping[str, Any] = self.document["components"]["responses"][names[status]]
        return declared

    def _check_headers(self, headers: httpx.Headers, declared: Mapping[str, Any], where: str) -> None:
        known = {name.lower(): self._resolve(header) for name, header in declared.items()}
        extra = {name.lower() for name in headers} - set(known) - TRANSPORT_HEADERS
        if extra:
            raise NonconformityError(f"{where}: undocumented headers: {sorted(extra)}")
        for name, header in known.items():
            if name not in headers:
                if header.get("required"):
                    raise NonconformityError(f"{where}: the header {name} is missing")
                continue
            value = int(headers[name]) if header["schema"]["type"] == "integer" else headers[name]
            self._compiled(header["schema"]).check(value, name)

    def _check_body(self, response: httpx.Response, declared: Mapping[str, Any], where: str) -> None:
        if "content" not in declared:
            if response.content:
                raise NonconformityError(f"{where}: a body that is not in the contract")
            return
        kind = response.headers.get("content-type", "").partition(";")[0]
        if kind not in declared["content"]:
            raise NonconformityError(f"{where}: the content type {kind!r} is not in the contract")
        if kind == "text/event-stream":
            path = response.request.url.path
            if path.startswith("/v1/runs/") and path.endswith("/events"):
                after = int(
                    response.request.headers.get("last-event-id") or response.request.url.params.get("after", 0)
                )
                check_run_events(self, response.text, after, where)
            elif path.startswith("/v1/responses"):
                after = int(response.request.url.params.get("starting_after", -1))
                check_response_stream(self, response.text, after, where)
            else:
                check_stream(self, response.text, where)
        elif kind == "application/json":
            self._compiled(declared["content"][kind]["schema"]).check(orjson.loads(response.content))
        elif kind == "text/yaml":
            self._compiled(declared["content"][kind]["schema"]).check(yaml.safe_load(response.content))

    def _component(self, name: str) -> CompiledSchema:
        return self._compiled({"$ref": f"#/components/schemas/{name}"})

    def _compiled(self, schema: dict[str, Any]) -> CompiledSchema:
        key = orjson.dumps(schema).decode()
        if key not in self._schemas:
            self._schemas[key] = CompiledSchema(schema, self.document)
        return self._schemas[key]

    def _resolve(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in node:
            return node
        target: Any = self.document
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        resolved: Mapping[str, Any] = target
        return resolved

    @staticmethod
    def _pattern(path: str, item: Mapping[str, Any]) -> re.Pattern[str]:
        pattern = re.escape(path)
        for parameter in next(iter(item.values())).get("parameters", ()):
            if parameter.get("in") == "path":
                anything = ".+" if parameter["schema"].get("format") == "path" else "[^/]+"
                pattern = pattern.replace(re.escape(f"{{{parameter['name']}}}"), anything)
        return re.compile(pattern, re.DOTALL)


def check_stream(conformance: Conformance, text: str, where: str = "stream") -> list[str]:
    """Check a whole event stream, which must end with one `[DONE]`; returns the `data` of its events."""
    if not text.endswith("data: [DONE]\n\n"):
        raise NonconformityError(f"{where}: the stream does not end with [DONE]")
    events = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    data = [event.removeprefix("data: ") for event in events]
    for item in data:
        conformance.check_chunk(item)
    if data.count("[DONE]") != 1:
        raise NonconformityError(f"{where}: [DONE] occurs more than once")
    return data


def check_run_events(conformance: Conformance, text: str, after: int = 0, where: str = "stream") -> list[Any]:
    """Check events of a run behind number `after`, whole or cut after an event: no gap, no repetition, one end."""
    blocks = ["\n".join(line for line in block.split("\n") if not line.startswith(":")) for block in text.split("\n\n")]
    values: list[Any] = []
    for block in filter(None, blocks):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        value = conformance.check_run_event(fields["data"])
        number = value["sequence_number"]
        if fields.keys() != {"id", "event", "data"} or (fields["id"], fields["event"]) != (str(number), value["type"]):
            raise NonconformityError(f"{where}: the event {number} is not what its data says")
        units = len(value["text"]) if value["type"] in ("text.delta", "reasoning.delta") else 1
        if number != after + units:
            raise NonconformityError(f"{where}: the event {number} of {units} does not follow {after}")
        if values and values[-1]["type"] == "run.ended":
            raise NonconformityError(f"{where}: an event follows the end")
        after = number
        values.append(value)
    return values


def check_resumed_stream(
    data: Sequence[str], run_id: str, events: Sequence[Mapping[str, Any]], after: int, where: str = "stream"
) -> None:
    """Check that the `data` of a chat stream, resumed behind number `after`, has what the `events` of the run have."""
    chunks = [orjson.loads(one) for one in data if one != "[DONE]"]
    ends = [event for event in events if event["type"] == "run.ended" and event["sequence_number"] > after]
    text = ""
    reasons = []
    for chunk in chunks:
        if "error" in chunk:
            reasons.append(chunk["error"]["code"])
            continue
        if chunk["id"] != run_id:
            raise NonconformityError(f"{where}: a chunk of {run_id} has the id {chunk['id']}")
        for choice in chunk["choices"]:
            content, number = choice["delta"].get("content"), chunk.get("openclaw", {}).get("sequence_number")
            text += content or ""
            reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
            if content and text != _text_between(events, after, number):
                raise NonconformityError(f"{where}: the text up to number {number} is not that of the run")
    if text != _text_between(events, after, events[-1]["sequence_number"]):
        raise NonconformityError(f"{where}: the text is not that of the run")
    if reasons != [end["error"]["code"] if end["error"] else end["finish_reason"] for end in ends]:
        raise NonconformityError(f"{where}: the ends {reasons} are not that of the run")


def _text_between(events: Sequence[Mapping[str, Any]], after: int, last: int) -> str:
    """Return the text with the numbers behind `after`, up to `last`."""
    text = ""
    for event in events:
        if event["type"] == "text.delta":
            first = event["sequence_number"] - len(event["text"]) + 1
            text += event["text"][max(0, after + 1 - first) : max(0, last + 1 - first)]
    return text


def check_response_stream(
    conformance: Conformance, text: str, after: int = -1, where: str = "stream"
) -> list[dict[str, Any]]:
    """Check events of a response behind number `after`: numbered without a gap, in order, one end, then `[DONE]`."""
    if not text.endswith("\n\ndata: [DONE]\n\n"):
        raise NonconformityError(f"{where}: the stream does not end with [DONE]")
    values: list[dict[str, Any]] = []
    for block in text.split("\n\n")[:-2]:
        if block.startswith(":"):
            continue
        kind, data = block.split("\n")
        value = conformance.check_response_event(data.removeprefix("data: "))
        if kind != f"event: {value['type']}":
            raise NonconformityError(f"{where}: {kind} is not what its data says")
        after += len(value.get("delta", "x"))
        if value["sequence_number"] != after:
            raise NonconformityError(f"{where}: the event {value['sequence_number']} is not number {after}")
        values.append(value)
    if not values and after >= 0:
        return []  # the client has all of them
    ends = [value["type"] for value in values if value["type"] in RESPONSE_ENDS]
    if len(ends) != 1 or values[-1]["type"] != ends[0]:
        raise NonconformityError(f"{where}: the ends {ends} before {values[-1]['type']}")
    if values[0]["sequence_number"] == 0:
        _check_order(values, where)
    return values


def _check_order(values: list[dict[str, Any]], where: str) -> None:
    """Check a whole stream: its beginning, the life of each item, and that the response at the end has all of it."""
    if [value["type"] for value in values[:2]] != ["response.created", "response.in_progress"]:
        raise NonconformityError(f"{where}: does not begin with created and in_progress")
    events: dict[int, list[Any]] = {}
    open_: int | None = None
    for value in values[2:-1]:
        index = value["output_index"]
        if open_ not in (None, index):
            raise NonconformityError(f"{where}: events of item {index} are within item {open_}")
        events.setdefault(index, []).append(value)
        is_over = value["type"] == "response.output_item.done" or events[index][0]["item"]["type"] == "mcp_call"
        open_ = None if is_over else index
    if list(events) != list(range(len(events))):
        raise NonconformityError(f"{where}: the items begin in the order {list(events)}")
    items = [_check_item(several, index, where) for index, several in events.items()]
    if values[-1]["response"]["output"] != items:
        raise NonconformityError(f"{where}: the response has other items than the stream")


def _check_item(values: list[dict[str, Any]], index: int, where: str) -> Any:
    item = values[-1]["item"]
    kinds = [value["type"].removeprefix("response.") for value in values if "delta" not in value]
    if item["type"] == "message":
        expected, whole = ["content_part.added", "output_text.done", "content_part.done"], item["content"][0]["text"]
    elif item["type"] == "reasoning":
        part, whole = "reasoning_summary_part", item["summary"][0]["text"]
        expected = [f"{part}.added", "reasoning_summary_text.done", f"{part}.done"]
    elif item["type"] == "mcp_call":
        end = "completed" if item["status"] == "completed" else "failed"
        expected, whole = ["mcp_call.in_progress", "mcp_call_arguments.done", f"mcp_call.{end}"], ""
    else:
        expected, whole = ["function_call_arguments.done"], item["arguments"]
    if kinds != ["output_item.added", *expected, "output_item.done"] or {value["output_index"] for value in values} != {
        index
    }:
        raise NonconformityError(f"{where}: the item {index} has the events {kinds}")
    if "".join(value.get("delta", "") for value in values) != whole:
        raise NonconformityError(f"{where}: the deltas of item {index} are not its text")
    if {value.get("item_id", item["id"]) for value in values} != {item["id"]}:
        raise NonconformityError(f"{where}: events of item {index} name another one")
    return item
