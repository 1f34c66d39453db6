"""A collector of OpenTelemetry's traces: an HTTP server that reads OTLP's protobuf messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.polling import until
from support.post_server import taking_posts


@dataclass(frozen=True)
class CollectedSpan:
    """A span; ids in hexadecimal, times in ns since 1970, `error` its status's description if it is an error."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start: int
    end: int
    attributes: Mapping[str, Any]
    events: Mapping[str, int]
    error: str | None
    resource: Mapping[str, Any]


@dataclass
class Collector:
    """What was sent, in how many requests, and the headers it came with; answers with `status` once `speaks` is set."""

    port: int = 0
    status: int = 200
    spans: list[CollectedSpan] = field(default_factory=list)
    requests: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)
    speaks: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, trace_id: str, count: int) -> list[CollectedSpan]:
        """The spans of a trace by their starts, once there are `count`."""

        def found() -> list[CollectedSpan]:
            return sorted((one for one in tuple(self.spans) if one.trace_id == trace_id), key=lambda one: one.start)

        until(lambda: len(found()) >= count)
        return found()

    def of_run(self, run_id: str, count: int) -> list[CollectedSpan]:
        """The spans of a run's trace."""

        def found() -> list[CollectedSpan]:
            return [one for one in tuple(self.spans) if one.attributes.get("openclaw.run.id") == run_id]

        until(lambda: bool(found()))
        return self.of(found()[0].trace_id, count)

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """Read one message, unless it is refused, and return the status."""
        self.requests += 1
        self.speaks.wait()
        if self.status == 200:
            self._read(path, headers, body)
        return self.status

    def _read(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.paths.add(path)
        self.headers = dict(headers)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_to_span(span, resource) for span in scope.spans]


def _to_span(span: Any, resource: Mapping[str, Any]) -> CollectedSpan:
    return CollectedSpan(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _values(span.attributes),
        {event.name: event.time_unix_nano for event in span.events},
        span.status.message if span.status.code == 2 else None,
        resource,
    )


def _values(pairs: Any) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        found[pair.key] = [one.string_value for one in value.values] if kind == "array_value" else value
    return found


@contextmanager
def collector() -> Iterator[Collector]:
    """Start a collector on the loopback interface."""
    made = Collector()
    made.speaks.set()
    with taking_posts(made.take) as made.port:
        try:
            yield made
        finally:
            made.speaks.set()
