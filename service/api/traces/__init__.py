"""Traces for OpenTelemetry, of which nothing is imported where they are off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from service.config.diagnostics import DiagnosticsConfig

if TYPE_CHECKING:
    from service.api.traces.export import Traces


def are_on(config: DiagnosticsConfig, environ: Mapping[str, str]) -> bool:
    """Return True if the configuration has traces sent, and OpenTelemetry's own switch does not forbid it."""
    return config.sends_traces and environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def open_traces(config: DiagnosticsConfig, environ: Mapping[str, str]) -> Traces:
    """Begin to make and send spans, until `close`. Raises `ImportError` without the extra `otel`."""
    from service.api.traces.export import Traces  # noqa: PLC0415

    return Traces(config.otel, environ)
