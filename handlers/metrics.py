"""`GET /metrics`: the metrics of all worker processes, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.api.http.connexion_app import current_request
from service.api.http.http_response import Response, ok_response
from service.core.logs import access_entry

if TYPE_CHECKING:
    from service.api.metrics.exporter import Metrics


def get_metrics() -> Response:
    """Return all metrics as Prometheus or OpenMetrics text."""
    request = current_request()
    metrics: Metrics = request.app.extensions["metrics"]
    media_type, text = metrics.to_text(request.environ.get("HTTP_ACCEPT", ""))
    access_entry(request.environ).is_routine = True
    return ok_response(media_type, text)
