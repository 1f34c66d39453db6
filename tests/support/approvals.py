"""List and decide approvals over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from support.polling import until

PATH = "/v1/approvals"


def pending(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(PATH).raise_for_status().json()["data"]
    return found


def wait_for_pending(client: httpx.Client, count: int = 1) -> dict[str, Any]:
    """Wait for `count` pending approvals and return the first."""
    until(lambda: len(pending(client)) >= count)
    return pending(client)[0]


def decide(client: httpx.Client, approval: Mapping[str, Any], decision: str) -> httpx.Response:
    return client.post(f"{PATH}/{approval['id']}", json={"decision": decision})
