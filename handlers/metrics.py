"""`GET /metrics`: the metrics of all worker processes, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.api.http.connexion_app import current_request
from service.api.http.http_response import Response, ok_response

if TYPE_CHECKING:
    from service.api.metrics.exporter import Metrics


def get_metrics() -> Response:
    """Return all metrics as Prometheus or OpenMetrics text."""
    metrics: Metrics = current_request().app.extensions["metrics"]
    media_type, text = metrics.to_text(current_request().environ.get("HTTP_ACCEPT", ""))
    return ok_response(media_type, text)
