"""What the README shows works as it is written there."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
from support.live import TOKEN, LiveGateway
from support.operator_client import raw_client

from service.config.loading import check_config_text

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
CONFIGURATIONS = re.findall(r"^```json5\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
HANDSHAKE = [line for line in README.splitlines() if line.startswith(("> {", "< {"))]
VARIABLES = dict.fromkeys(("OPENCLAW_GATEWAY_TOKEN", "OPENAI_API_KEY", "TOKEN"), "x")


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_a_configuration_is_accepted_without_a_notice(text: str) -> None:
    assert check_config_text(text, "README.md", VARIABLES).notices == ()


def test_the_handshake_goes_as_it_is_written(gateway: LiveGateway) -> None:
    assert [line[0] for line in HANDSHAKE] == ["<", ">", "<", ">", "<", "<", "<"]
    with raw_client(gateway) as client:
        for line in HANDSHAKE:
            if line.startswith(">"):
                client.connection.send(line[2:].replace("YOUR_TOKEN", TOKEN))
                continue
            told = re.findall(r'"(?:type|event|id|protocol|runId|status|stream|delta|text)":(?:"[^"]*"|\d+)', line)
            while not set(told) <= set(pairs_of(frame := client.receive())):
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
