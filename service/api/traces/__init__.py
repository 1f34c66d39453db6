"""Traces for OpenTelemetry; imported only where they are switched on."""
