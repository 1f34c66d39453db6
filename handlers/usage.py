"""`/v1/usage`: what was used and what it cost."""

from service.api.http.connexion_app import current_gateway, current_principal
from service.api.http.http_response import Response, json_response
from service.api.usage_report import UsageReport, parse_period
from service.storage.usage import UsageGroup


def list_usage(limit: int, by: str, **days: str) -> Response:
    """List the sums of whole days; an API key sees its own."""
    gateway = current_gateway()
    principal = current_principal()
    period = parse_period(days.get("from"), days.get("to"), gateway.now())
    return json_response(UsageReport(gateway.storage, UsageGroup(by), period, principal).to_list(limit))
