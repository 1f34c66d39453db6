"""List and decide approvals over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx

PATH = "/v1/approvals"
PATIENCE_SECONDS = 20


def pending(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(PATH).raise_for_status().json()["data"]
    return found


def wait_for_pending(client: httpx.Client, count: int = 1) -> dict[str, Any]:
    """Wait for `count` pending approvals and return the first."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found := pending(client)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found[0]


def decide(client: httpx.Client, approval: Mapping[str, Any], decision: str) -> httpx.Response:
    return client.post(f"{PATH}/{approval['id']}", json={"decision": decision})
