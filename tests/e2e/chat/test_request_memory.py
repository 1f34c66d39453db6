"""Memory after requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from support.chat import PATH
from support.live import live_gateway, scripted_config

MEGABYTE = 1024 * 1024
REQUESTS, BODY_MEGABYTES, ALLOWED_MEGABYTES = 24, 6, 60


@pytest.mark.parametrize(
    ("model", "fields", "status"),
    [
        ("scripted/count-3", {}, 200),
        ("scripted/echo", {"temperature": 9}, 400),
        ("scripted/fail-provider_error", {}, 502),
    ],
    ids=["answered", "refused", "failed"],
)
def test_bodies_of_requests_are_released(model: str, fields: dict[str, Any], status: int, tmp_path: Path) -> None:
    text = "x" * (BODY_MEGABYTES * MEGABYTE)
    body = orjson.dumps({"model": "openclaw", "messages": [{"role": "user", "content": text}], **fields})
    headers = {"content-type": "application/json", "x-openclaw-model": model}
    with live_gateway(tmp_path / "gateway", scripted_config()) as gateway, gateway.client() as client:
        process = psutil.Process(gateway.process.pid)
        for _ in range(3):
            assert client.post(PATH, content=body, headers=headers).status_code == status
        before = process.memory_info().rss
        for _ in range(REQUESTS):
            client.post(PATH, content=body, headers=headers)
        grown = (process.memory_info().rss - before) / MEGABYTE
    assert grown < ALLOWED_MEGABYTES, f"{grown:.0f} MB for {REQUESTS} requests of {BODY_MEGABYTES} MB"
