"""OpenAI's SDK, its Agents SDK and the AI SDK for Node against a live gateway, by the Responses API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.live import LiveGateway

from interop_responses.conftest import Clients

SAID: dict[str, dict[str, Any]] = {
    "openai_node.mjs": {
        "created": "hello",
        "deltas": "two words",
        "streamed": "two words",
        "retrieved": "hello",
        "continued": 3,
        "items": ["message"],
        "cancelled": "cancelled",
        "parsed": {"name": "Rex"},
        "deleted": "response_not_found",
    },
    "ai_sdk.mjs": {
        "generated": ["hello there", "stop", 4],
        "streamed": ["hello there", "stop"],
        "loop": ["sunny", 2],
        "streamedLoop": "sunny",
    },
    "agents_sdk.mjs": {"loop": "sunny", "handedTo": "last", "streamed": "sunny"},
}


@pytest.mark.parametrize("program", SAID)
def test_library_does_its_work(program: str, gateway: LiveGateway, clients: Clients, tmp_path: Path) -> None:
    printed = clients.run(Path(__file__).with_name(program), gateway, tmp_path)
    assert json.loads(printed) == SAID[program]
