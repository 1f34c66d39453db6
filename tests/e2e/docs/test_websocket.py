"""The handshake in the documents goes as it is written."""

from __future__ import annotations

import re

import orjson
from support.documents import ROOT
from support.live import TOKEN, LiveGateway
from support.operator_client import raw_client

TEXT = (ROOT / "docs" / "websocket.md").read_text(encoding="utf-8")
HANDSHAKE = [line for line in TEXT.splitlines() if line.startswith(("> {", "< {"))]


def test_handshake_goes_as_it_is_written(gateway: LiveGateway) -> None:
    assert [line[0] for line in HANDSHAKE] == ["<", ">", "<", ">", "<", "<", "<"]
    with raw_client(gateway) as client:
        for line in HANDSHAKE:
            if line.startswith(">"):
                client.connection.send(line[2:].replace("YOUR_TOKEN", TOKEN))
                continue
            shown = re.findall(r'"(?:type|event|id|protocol|runId|status|stream|delta|text)":(?:"[^"]*"|\d+)', line)
            while not set(shown) <= set(pairs_of(frame := client.receive())):
                pass
            assert frame.get("ok", True)


def pairs_of(value: object) -> list[str]:
    """Every key with its plain value, anywhere in `value`, as JSON writes them."""
    if isinstance(value, list):
        return [pair for one in value for pair in pairs_of(one)]
    if not isinstance(value, dict):
        return []
    found = [pair for one in value.values() for pair in pairs_of(one)]
    return found + [orjson.dumps({key: one}).decode()[1:-1] for key, one in value.items() if not pairs_of(one)]
