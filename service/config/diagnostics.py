"""The configuration's section on OpenTelemetry."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from service.config.problems import Section
from service.config.types import Bool, HeaderName, HeaderValue, HttpUrl


class OtelConfig(Section):
    """Traces for OpenTelemetry, which need the extra `otel`. OTEL_* variables apply where a key is unset."""

    enabled: Bool = False
    """Send them, over HTTP."""
    endpoint: HttpUrl | None = None
    """URL of the collector, to which `/v1/traces` is added. Unset: OTEL_EXPORTER_OTLP_ENDPOINT, else port 4318 of this
    machine."""
    traces_endpoint: HttpUrl | None = None
    """The whole URL. Unset: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, else by `endpoint`."""
    protocol: Literal["http/protobuf"] = "http/protobuf"
    """The only protocol there is."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)
    """HTTP headers to send. Unset: OTEL_EXPORTER_OTLP_HEADERS."""
    service_name: Annotated[str, Field(min_length=1)] | None = None
    """Name of the service. Unset: OTEL_SERVICE_NAME, else "openclaw-gateway"."""
    traces: Bool = True
    """Send traces; there is nothing else to send."""
    sample_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the traces to keep that begin here; callers decide on theirs. Unset: OTEL_TRACES_SAMPLER, else all."""


class DiagnosticsConfig(Section):
    """Traces and other signals that the gateway sends to other systems."""

    enabled: Bool = True
    """False switches everything below off."""
    otel: OtelConfig = OtelConfig()
    """Traces for OpenTelemetry."""

    @property
    def sends_traces(self) -> bool:
        """True if traces are sent."""
        return self.enabled and self.otel.enabled and self.otel.traces
