"""The webhook that a request names for the end of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.core.errors import GatewayError
from service.core.fetch.client import PublicHttpClient
from service.core.fetch.errors import FetchError
from service.storage.runs.records import Webhook


def parse_webhook(body: Mapping[str, Any]) -> Webhook | None:
    """Return the webhook of a request; `body` satisfies the contract."""
    given = body.get("webhook")
    return None if given is None else Webhook(given["url"], given["secret"])


def check_webhook(webhook: Webhook, client: PublicHttpClient) -> None:
    """Raise `GatewayError` (400) for a webhook that `client` cannot be sent to."""
    try:
        client.check(webhook.url)
    except FetchError as error:
        raise GatewayError("invalid_value", f"`webhook.url`: {error}.", param="webhook.url") from None
