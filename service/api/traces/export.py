"""Send spans to a collector, over HTTP, in batches and in a greenlet of its own.

A collector that does not answer costs no request anything: spans wait in a queue of bounded length, and what does not
fit is lost.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from service import __version__
from service.api.traces.spans import Spans
from service.config.diagnostics import OtelConfig
from service.core.concurrency import Event, spawn

logger = logging.getLogger("openclaw.traces")

_STOP_SECONDS = 1.5
_CONTENT_KEY = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_WITH_CONTENT = frozenset({"true", "span_only", "span_and_event"})

#: With contents a span can have half a megabyte.
_QUEUED_SPANS, _QUEUED_WITH_CONTENT = 2048, 128
#: Encoding blocks the other greenlets of the process.
_BATCH_SPANS = 64
_DELAY_MS = 5000

_FAILED = (
    "Traces cannot be sent to %s, and are lost: %s Check that a collector listens there, or set "
    "diagnostics.otel.endpoint."
)


class Traces:
    """The traces of this process, until `close`."""

    def __init__(self, config: OtelConfig, environ: Mapping[str, str]) -> None:
        self.config = config
        with_content = environ.get(_CONTENT_KEY, "").strip().lower() in _WITH_CONTENT
        sampler = None if config.sample_rate is None else ParentBased(TraceIdRatioBased(config.sample_rate))
        provider = TracerProvider(sampler, _resource(config, environ), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(config.own_url(environ), headers=config.headers or None)
        queued = _QUEUED_WITH_CONTENT if with_content else _QUEUED_SPANS
        self._queue = _SpanQueue(exporter, environ, queued, _to_shown(config.find_url(environ)))
        provider.add_span_processor(self._queue)
        self._spans = Spans(provider.get_tracer("openclaw-gateway", __version__), with_content=with_content)
        self._spans.connect()

    def close(self) -> None:
        """Make no more spans, and send those that wait, for two seconds at most."""
        self._spans.disconnect()
        self._queue.shutdown()


def _to_shown(url: str) -> str:
    """Return a URL without what may be secret in it."""
    return _without_queries(re.sub(r"//[^/?#]*@", "//", url))


def _without_queries(text: str) -> str:
    """Return a text without the queries of the addresses in it."""
    return re.sub(r"\?\S*", "", text)


def _resource(config: OtelConfig, environ: Mapping[str, str]) -> Resource:
    attributes = {SERVICE_VERSION: __version__}
    named = "OTEL_SERVICE_NAME" in environ or f"{SERVICE_NAME}=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if config.service_name is not None or not named:
        attributes[SERVICE_NAME] = config.service_name or "openclaw-gateway"
    return Resource.create(attributes)


class _SpanQueue(SpanProcessor):
    """Spans that have ended and wait to be sent.

    OpenTelemetry's own processor has a thread, which it starts again in every forked process. In a patched process that
    would be a greenlet, and each child the gateway starts would run its parent's event loop.
    """

    def __init__(self, exporter: OTLPSpanExporter, environ: Mapping[str, str], queued: int, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._queued = _positive(environ, "OTEL_BSP_MAX_QUEUE_SIZE", queued)
        self._at_once = min(_positive(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH_SPANS), self._queued)
        self._delay_seconds = _positive(environ, "OTEL_BSP_SCHEDULE_DELAY", _DELAY_MS) / 1000
        self._waiting: deque[ReadableSpan] = deque()
        self._lost = 0
        self._has_failed = self._is_ending = False
        self._is_due = Event()
        self._messages = _Messages()
        self._sender = spawn(self._send)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See `SpanProcessor`."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue `span`, unless it was not sampled."""
        if not span.context.trace_flags.sampled:
            return
        if len(self._waiting) >= self._queued:
            self._lost += 1
            return
        self._waiting.append(span)
        if len(self._waiting) >= self._at_once:
            self._is_due.set()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - OpenTelemetry's
        """See `SpanProcessor`; `shutdown` sends what waits."""
        return False

    def shutdown(self) -> None:
        """Send what waits, for two seconds at most."""
        self._is_ending = True
        self._is_due.set()
        self._sender.join(_STOP_SECONDS)
        self._sender.kill()
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._messages.close()

    def _send(self) -> None:
        while not self._is_ending:
            self._is_due.wait(self._delay_seconds)
            self._is_due.clear()
            while self._waiting:
                count = min(len(self._waiting), self._at_once)
                self._send_batch([self._waiting.popleft() for _ in range(count)])

    def _send_batch(self, spans: Sequence[ReadableSpan]) -> None:
        self._messages.texts.clear()
        has_failed = self._exporter.export(spans) is not SpanExportResult.SUCCESS
        if has_failed and not self._has_failed:
            logger.warning(_FAILED, self._endpoint, self._messages.cause)
        elif self._has_failed and not has_failed:
            logger.warning("Export of traces has recovered; %d spans were dropped", self._lost)
            self._lost = 0
        self._has_failed = has_failed
        self._lost += len(spans) if has_failed else 0


def _positive(environ: Mapping[str, str], name: str, otherwise: int) -> int:
    text = environ.get(name, "").strip()
    return int(text) if text.isdecimal() and int(text) else otherwise


class _Messages(logging.Filter):
    """Keeps the exporter's messages, of which each failure has several, out of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._logger = logging.getLogger(OTLPSpanExporter.__module__)
        self._logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the message."""
        self.texts.append(record.getMessage())
        return False

    @property
    def cause(self) -> str:
        """Why the latest batch failed: its last message, and the failure that a retry before it names."""
        *earlier, last = self.texts or ["unknown"]
        failure = "".join(earlier[-1:]).partition(" encountered while")[0].removeprefix("Transient error ")
        return _without_queries(f"{failure}. {last}" if failure else last)

    def close(self) -> None:
        """Keep no more."""
        self._logger.removeFilter(self)
