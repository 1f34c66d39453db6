"""The configuration's section on OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from service.config.problems import Section
from service.config.types import Bool, HeaderName, HeaderValue, HttpUrl

_TRACES_KEY, _ENDPOINT_KEY = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
_DEFAULT_URL = "http://localhost:4318"


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

    def own_url(self, environ: Mapping[str, str]) -> str | None:
        """Return the URL to send to, `None` for that of the environment, which OpenTelemetry reads itself."""
        if self.traces_endpoint is not None or environ.get(_TRACES_KEY):
            return self.traces_endpoint
        if self.endpoint is None:
            return None
        url = self.endpoint.rstrip("/")
        return url if url.endswith("/v1/traces") else f"{url}/v1/traces"

    def find_url(self, environ: Mapping[str, str]) -> str:
        """Return the URL to send to, that of the environment included."""
        base = (environ.get(_ENDPOINT_KEY) or _DEFAULT_URL).rstrip("/")
        return self.own_url(environ) or environ.get(_TRACES_KEY) or f"{base}/v1/traces"


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
